export { default } from "./NotFound";

import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";
import { compress } from "./compress";

export default defineConfig({
  // Assets are found beside the page, wherever a proxy has put it.
  base: "./",
  plugins: [react(), compress()],
  build: { target: "es2022", sourcemap: false, assetsInlineLimit: 0 },
  server: {
    proxy: Object.fromEntries(
      ["/v1", "/metrics", "/status", "/healthz", "/readyz"].map((path) => [
        path,
        { target: process.env.PADDOCK_ENDPOINT ?? "http://127.0.0.1:9997" },
      ]),
    ),
  },
});

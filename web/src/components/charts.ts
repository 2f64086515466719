// A chunk of its own: the library is large, and no page needs it to be read.
import "@mantine/charts/styles.css";

export { AreaChart, BarChart } from "@mantine/charts";

import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "./app.css";
import "./i18n";
import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { RouterProvider } from "react-router/dom";
import { asApiError } from "./api/client";
import { router } from "./router";
import { theme, variables } from "./theme";

const RETRIES = 2;

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      // What is wrong with a request does not mend itself; a gateway that restarts does.
      retry: (failures, error) => asApiError(error).status === 0 && failures < RETRIES,
      staleTime: 2000,
    },
  },
});

createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <MantineProvider theme={theme} cssVariablesResolver={variables} defaultColorScheme="auto">
      <QueryClientProvider client={queries}>
        {/* In a transition what is typed would come back late: letters, or whole fields, were lost. */}
        <RouterProvider router={router} useTransitions={false} />
      </QueryClientProvider>
    </MantineProvider>
  </StrictMode>,
);

import { createHashRouter } from "react-router";
import { App } from "./App";
import { Crash } from "./components/Crash";

/** A page that is fetched when it is first gone to. */
function page(load: () => Promise<{ default: React.ComponentType }>) {
  return async () => ({ Component: (await load()).default });
}

// What comes after `#` never reaches the gateway: no route of its API can be in the way of a page's,
// and a proxy may serve all of it below any folder.
export const router = createHashRouter([
  {
    path: "/",
    element: <App />,
    errorElement: <Crash />,
    hydrateFallbackElement: <span />,
    children: [
      {
        errorElement: <Crash />,
        children: [
          { index: true, lazy: page(() => import("./pages/Zoo")) },
          { path: "models/*", lazy: page(() => import("./pages/ZooModel")) },
          { path: "launch/*", lazy: page(() => import("./pages/Launch")) },
          { path: "running", lazy: page(() => import("./pages/Running")) },
          { path: "running/*", lazy: page(() => import("./pages/RunningModel")) },
          { path: "playground", lazy: page(() => import("./pages/Playground")) },
          { path: "memory", lazy: page(() => import("./pages/Memory")) },
          { path: "downloads", lazy: page(() => import("./pages/Downloads")) },
          { path: "cluster", lazy: page(() => import("./pages/Cluster")) },
          { path: "keys", lazy: page(() => import("./pages/Keys")) },
          { path: "*", lazy: page(() => import("./pages/NotFound")) },
        ],
      },
    ],
  },
]);

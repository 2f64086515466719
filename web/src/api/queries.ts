import { useQuery } from "@tanstack/react-query";
import { api, data } from "./client";

/** Every model that is launched, in any state; events keep it fresh. */
export function useInstances() {
  return useQuery({
    queryKey: ["models"],
    queryFn: () => data(api.GET("/v1/models/instances")),
    // Events that were missed while nobody listened.
    refetchInterval: 30_000,
  });
}

/** One of them; undefined while it is not known, null if there is none. */
export function useInstance(uid: string) {
  const found = useInstances();
  const one = found.data?.find((model) => model.model_uid === uid);
  return { ...found, data: found.data ? (one ?? null) : undefined };
}

import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useStore } from "../lib/store";
import { api, asApiError, data, key } from "./client";

/** Every model that is launched, in any state; events keep it fresh. */
export function useInstances() {
  return useQuery({
    queryKey: ["models"],
    queryFn: () => data(api.GET("/v1/models/instances")),
    // Events that were missed while nobody listened.
    refetchInterval: 30_000,
  });
}

/** The models that can answer, and that the caller may ask. */
export function useAnswering() {
  return useQuery({
    queryKey: ["models", "answering"],
    queryFn: async () =>
      (await data(api.GET("/v1/models"))).data.filter((model) => model.model_type === "LLM"),
    // A key of scope inference hears no events.
    refetchInterval: 10_000,
  });
}

/** Who we are to the gateway, and what our key reaches. */
export function useCaller() {
  const used = useStore(key);
  return useQuery({
    queryKey: ["caller", used],
    queryFn: () => data(api.GET("/v1/whoami")),
    staleTime: Number.POSITIVE_INFINITY,
    // Nothing is shown live before this is known.
    retry: (_, error) => asApiError(error).status === 0,
    retryDelay: 1000,
  });
}

/** One launched model; undefined while it is not known, null if there is none. */
export function useInstance(uid: string) {
  const found = useInstances();
  const one = found.data?.find((model) => model.model_uid === uid);
  return { ...found, data: found.data ? (one ?? null) : undefined };
}

/** What a list of models is narrowed to; the words and names of `paddock search`. */
export interface ZooFilters {
  q?: string;
  ability?: string[];
  type?: string[];
  format?: string[];
  engine?: string[];
  language?: string[];
  size?: string;
  fits?: boolean;
}

/** The catalogue, best match first; the last answer stays while the next is on its way. */
export function useZoo(filters: ZooFilters = {}) {
  return useQuery({
    queryKey: ["zoo", filters],
    queryFn: ({ signal }) =>
      data(api.GET("/v1/zoo", { params: { query: filters as Record<string, never> }, signal })),
    placeholderData: keepPreviousData,
  });
}

/** One model with its variants; names may be references, such as `hf:owner/name`. */
export function useZooModel(name: string) {
  return useQuery({
    queryKey: ["zoo", "model", name],
    queryFn: () => data(api.GET("/v1/zoo/{name}", { params: { path: { name } } })),
    enabled: name !== "",
    retry: false,
  });
}

/** Every engine, as it is on the gateway's machine; asked anew when the number of installs changes. */
export function useEngines(installing = 0) {
  return useQuery({
    queryKey: ["engines", installing],
    queryFn: async () => (await data(api.GET("/v1/engines"))).engines,
    placeholderData: keepPreviousData,
  });
}

/** Every machine that models may run on, and what it has now. */
export function useNodes() {
  return useQuery({
    queryKey: ["nodes"],
    queryFn: async () => (await data(api.GET("/v1/nodes"))).nodes,
    refetchInterval: 5000,
  });
}

import { Anchor } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { api, asApiError, data, type Launch } from "./client";

const RUNNING_MS = 700;
const IDLE_MS = 10_000;

/** Every download that the gateway knows; asked for often while one runs. */
export function usePulls() {
  return useQuery({
    queryKey: ["pulls"],
    queryFn: async () => (await data(api.GET("/v1/pulls"))).data,
    refetchInterval: ({ state }) =>
      state.data?.some((one) => one.state === "downloading") ? RUNNING_MS : IDLE_MS,
  });
}

/** Begins a download, and says where it is seen. */
export function usePull() {
  const { t } = useTranslation();
  const client = useQueryClient();
  return useMutation({
    mutationFn: (body: Launch) => data(api.POST("/v1/pulls", { body })),
    onSuccess: (pull) => {
      void client.invalidateQueries({ queryKey: ["pulls"] });
      notifications.show({
        title: t("pulls.begun", { model: pull.model_name, quantization: pull.quantization }),
        message: (
          <Anchor component={Link} to="/downloads" size="sm">
            {t("pulls.watch")}
          </Anchor>
        ),
      });
    },
    onError: (error) =>
      notifications.show({
        color: "red",
        title: t("pulls.refused"),
        message: asApiError(error).message,
      }),
  });
}

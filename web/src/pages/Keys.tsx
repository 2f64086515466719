import {
  Alert,
  Badge,
  Button,
  Card,
  Group,
  MultiSelect,
  Radio,
  Skeleton,
  Stack,
  Text,
  TextInput,
} from "@mantine/core";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { KeyRound, Plus, Trash2 } from "lucide-react";
import { type FormEvent, useState } from "react";
import { useTranslation } from "react-i18next";
import { api, data, type Schemas, signIn } from "../api/client";
import { useInstances } from "../api/queries";
import { Command } from "../components/Command";
import { Confirm } from "../components/Confirm";
import { Dialog } from "../components/Dialog";
import { Empty } from "../components/Empty";
import { ErrorView } from "../components/Failure";
import { PageHeader } from "../components/PageHeader";
import { moment } from "../lib/format";
import { Store, useStore } from "../lib/store";

type Key = Schemas["Key"];

/** The key that was just made. It is shown this once, and must outlive the page: with the first key
 * other requests of this page are refused for a moment, and it is put aside for the sign-in.
 */
const made = new Store<Schemas["MadeKey"] | null>(null);

/** Who may talk to the gateway. */
export default function Keys() {
  const { t } = useTranslation();
  const [making, setMaking] = useState(false);
  const shown = useStore(made);
  const [revoking, setRevoking] = useState<Key | null>(null);
  const keys = useQuery({
    queryKey: ["keys"],
    queryFn: async () => (await data(api.GET("/v1/keys"))).data,
  });
  return (
    <>
      <PageHeader title={t("keys.title")} text={t("keys.text")}>
        <Button
          leftSection={<Plus size={16} aria-hidden />}
          // Whether it is the first key decides what it is for.
          disabled={keys.isPending}
          onClick={() => setMaking(true)}
        >
          {t("keys.create")}
        </Button>
      </PageHeader>
      <Stack>
        {shown && (
          <Alert
            color="green"
            icon={<KeyRound size={18} />}
            title={t("keys.made")}
            withCloseButton
            closeButtonLabel={t("keys.dismiss")}
            onClose={() => made.set(null)}
          >
            <Text size="sm" mb="xs">
              {t("keys.once")}
            </Text>
            <Command value={shown.key} />
          </Alert>
        )}
        {keys.isPending && <Skeleton h={120} />}
        {keys.isError && <ErrorView error={keys.error} retry={() => keys.refetch()} />}
        {keys.data?.length === 0 && <Empty title={t("keys.none")}>{t("keys.noneText")}</Empty>}
        {keys.data?.map((one) => (
          <KeyCard key={one.id} one={one} revoke={() => setRevoking(one)} />
        ))}
      </Stack>
      {making && (
        <Create
          first={keys.data?.length === 0}
          close={() => setMaking(false)}
          done={(key) => {
            made.set(key);
            setMaking(false);
          }}
        />
      )}
      {revoking && (
        <Revoke one={revoking} last={keys.data?.length === 1} close={() => setRevoking(null)} />
      )}
    </>
  );
}

function KeyCard({ one, revoke }: { one: Key; revoke: () => void }) {
  const { t, i18n } = useTranslation();
  return (
    <Card withBorder padding="sm" data-key={one.name}>
      <Group justify="space-between">
        <div style={{ minWidth: 0 }}>
          <Group gap="xs">
            <Text fw={600} className="wrap">
              {one.name || one.id}
            </Text>
            <Badge variant="light" color={one.scope === "admin" ? "red" : "blue"} tt="none">
              {t(`keys.scope.${one.scope as "admin"}`)}
            </Badge>
          </Group>
          <Text size="sm" c="dimmed" className="wrap">
            {one.id} · {t("keys.created", { time: moment(one.created, i18n.language) })} ·{" "}
            {one.scope === "monitor"
              ? t("keys.monitorText")
              : one.models.join(", ") || t("keys.allModels")}
          </Text>
        </div>
        <Button
          size="xs"
          variant="light"
          color="red"
          leftSection={<Trash2 size={14} aria-hidden />}
          onClick={revoke}
          aria-label={t("keys.revokeLabel", { key: one.name || one.id })}
        >
          {t("keys.revoke")}
        </Button>
      </Group>
    </Card>
  );
}

function Create(props: {
  first: boolean;
  close: () => void;
  done: (key: Schemas["MadeKey"]) => void;
}) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const instances = useInstances();
  const [name, setName] = useState("");
  const [scope, setScope] = useState(props.first ? "admin" : "inference");
  const [models, setModels] = useState<string[]>([]);
  const create = useMutation({
    mutationFn: () =>
      data(
        api.POST("/v1/keys", {
          body: { name: name.trim(), scope, models: scope === "inference" ? models : [] },
        }),
      ),
    onSuccess: (key) => {
      // From the first key on the gateway asks for one: this page must not lock itself out.
      if (props.first && scope === "admin") signIn(key.key, false);
      void client.invalidateQueries({ queryKey: ["keys"] });
      props.done(key);
    },
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    create.mutate();
  };
  return (
    <Dialog title={t("keys.create")} close={props.close}>
      <form onSubmit={submit}>
        <Stack>
          {props.first && (
            <Alert color="yellow">
              {scope === "admin" ? t("keys.first") : t("keys.firstInference")}
            </Alert>
          )}
          <TextInput
            label={t("keys.name")}
            description={t("keys.nameHint")}
            value={name}
            onChange={(event) => setName(event.currentTarget.value)}
            data-autofocus
          />
          <Radio.Group label={t("keys.for")} value={scope} onChange={setScope}>
            <Stack gap="xs" mt={4}>
              <Radio
                value="inference"
                label={t("keys.scope.inference")}
                description={t("keys.inferenceText")}
              />
              <Radio
                value="monitor"
                label={t("keys.scope.monitor")}
                description={t("keys.monitorText")}
              />
              <Radio
                value="admin"
                label={t("keys.scope.admin")}
                description={t("keys.adminText")}
              />
            </Stack>
          </Radio.Group>
          {scope === "inference" && (
            <MultiSelect
              label={t("keys.models")}
              placeholder={models.length ? undefined : t("keys.allModels")}
              data={(instances.data ?? []).map((model) => model.model_uid)}
              value={models}
              onChange={setModels}
              clearable
            />
          )}
          {create.isError && <ErrorView error={create.error} />}
          <Group justify="flex-end">
            <Button variant="default" onClick={props.close}>
              {t("keys.cancel")}
            </Button>
            <Button type="submit" loading={create.isPending}>
              {t("keys.create")}
            </Button>
          </Group>
        </Stack>
      </form>
    </Dialog>
  );
}

function Revoke({ one, last, close }: { one: Key; last: boolean; close: () => void }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const revoke = useMutation({
    mutationFn: () => data(api.DELETE("/v1/keys/{id}", { params: { path: { id: one.id } } })),
    onSuccess: () => {
      void client.invalidateQueries({ queryKey: ["keys"] });
      close();
    },
  });
  return (
    <Confirm
      title={t("keys.revokeLabel", { key: one.name || one.id })}
      text={t(last ? "keys.revokeLastText" : "keys.revokeText")}
      keep={t("keys.cancel")}
      lose={t("keys.revoke")}
      work={revoke}
      close={close}
    />
  );
}

import {
  Accordion,
  ActionIcon,
  Anchor,
  Box,
  Button,
  Card,
  Checkbox,
  Drawer,
  Group,
  JsonInput,
  Menu,
  MultiSelect,
  NumberInput,
  SegmentedControl,
  SimpleGrid,
  Stack,
  Text,
  Textarea,
  Title,
  Tooltip,
} from "@mantine/core";
import { useDisclosure, useLocalStorage } from "@mantine/hooks";
import { notifications } from "@mantine/notifications";
import { Clipboard, Eraser, History, Send, Square, Trash2 } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { BASE, key } from "../api/client";
import { generate, type Route, type Run } from "../api/inference";
import { useAnswering } from "../api/queries";
import { Empty } from "../components/Empty";
import { PageHeader } from "../components/PageHeader";
import { RunView } from "../components/RunView";
import { copyText } from "../lib/clipboard";
import { useFollowing } from "../lib/following";
import { moment } from "../lib/format";
import { type Entry, forget, history, remember, type Turn } from "../lib/history";
import { useQueryState } from "../lib/query";
import {
  BadField,
  FLAGS,
  isOf,
  type Mode,
  NOTHING,
  NUMBERS,
  type Sampling,
  samplingFields,
} from "../lib/sampling";
import { LANGUAGES, type Snippet, snippet } from "../lib/snippets";
import { soon } from "../lib/soon";
import { useStore } from "../lib/store";

const DRAW_MS = 40;
/** Where several models' answers stand side by side. */
const BESIDE = "(min-width: 62em)";

/** Asks one or several models, side by side. */
export default function Playground() {
  const { t } = useTranslation();
  const { query, change } = useQueryState();
  const answering = useAnswering();
  const ready = answering.data ?? [];
  const asked = [...new Set(query.get("models")?.split(",").filter(Boolean))];
  const models = asked.length ? asked : ready.slice(0, 1).map((model) => model.id);
  const chats = models.every((uid) => {
    const one = ready.find((model) => model.id === uid);
    return !one || one.model_ability.includes("chat");
  });
  const mode: Mode = query.get("mode") === "completion" || !chats ? "completion" : "chat";
  const [system, setSystem] = useLocalStorage({ key: "paddock.system", defaultValue: "" });
  const [sampling, setSampling] = useLocalStorage({
    key: "paddock.sampling",
    defaultValue: NOTHING,
  });
  const [prompt, setPrompt] = useState("");
  const [turns, setTurns] = useState<Record<string, Turn[]>>({});
  const [runs, setRuns] = useState<Record<string, Run>>({});
  const [sent, setSent] = useState("");
  const [bad, setBad] = useState<BadField | null>(null);
  const [shows, { open, close }] = useDisclosure();
  const leaving = useRef<AbortController | null>(null);
  const isRunning = Object.values(runs).some((run) => run.state === "running");
  useEffect(() => () => leaving.current?.abort(), []);
  const follow = useFollowing(runs);

  const body = (
    uid: string,
    text: string,
    before: readonly Turn[],
  ): [Route, Record<string, unknown>] => {
    const fields = samplingFields({ ...NOTHING, ...sampling }, mode);
    if (mode === "completion") return ["/v1/completions", { model: uid, prompt: text, ...fields }];
    const said = [...before, { role: "user", content: text }];
    const messages = system.trim() ? [{ role: "system", content: system.trim() }, ...said] : said;
    return ["/v1/chat/completions", { model: uid, messages, ...fields }];
  };

  const send = async () => {
    let requests: [string, Route, Record<string, unknown>][];
    try {
      requests = models.map((uid) => [uid, ...body(uid, prompt, turns[uid] ?? [])]);
      setBad(null);
    } catch (error) {
      if (!(error instanceof BadField)) throw error;
      setBad(error);
      return;
    }
    const controller = new AbortController();
    leaving.current = controller;
    const known: Record<string, Run> = {};
    const draw = soon(() => setRuns({ ...known }), DRAW_MS);
    const entry: Entry = {
      ...{ id: crypto.randomUUID?.() ?? String(Date.now()), at: Date.now(), mode, models },
      ...{ system, sampling, prompt, turns, answers: {} },
    };
    setSent(prompt);
    // One below another, each has its own end.
    if (models.length === 1 || window.matchMedia(BESIDE).matches) follow();
    if (mode === "chat") setPrompt("");
    const asking = requests.map(async ([uid, route, fields]) => {
      const run = await generate(route, fields, controller.signal, (now) => {
        known[uid] = now;
        draw();
      });
      return [uid, run] as const;
    });
    setRuns({ ...known });
    const answers = await Promise.all(asking);
    setRuns(Object.fromEntries(answers));
    for (const [uid, { choices, state }] of answers) {
      entry.answers[uid] = { text: choices[0].text, state };
    }
    remember(entry);
    if (mode !== "chat") return;
    if (answers.every(([, run]) => run.state === "failed")) {
      setPrompt((now) => now || entry.prompt);
      return;
    }
    setTurns((before) => ({
      ...before,
      ...Object.fromEntries(
        answers
          .filter(([, run]) => run.choices[0].text)
          .map(([uid, run]) => [
            uid,
            [
              ...(before[uid] ?? []),
              { role: "user" as const, content: entry.prompt },
              { role: "assistant" as const, content: run.choices[0].text },
            ],
          ]),
      ),
    }));
  };

  const restore = (entry: Entry) => {
    change({ models: entry.models.join(","), mode: entry.mode === "chat" ? null : "completion" });
    setSystem(entry.system);
    setSampling(entry.sampling);
    setPrompt(entry.prompt);
    setTurns(entry.turns);
    setRuns({});
    close();
  };

  const clear = () => {
    setTurns({});
    setRuns({});
    setSent("");
  };

  if (answering.data && ready.length === 0) {
    return (
      <>
        <PageHeader title={t("play.title")} />
        <Empty title={t("play.none")}>
          {t("running.noneText")}{" "}
          <Anchor component={Link} to="/launch/tiny-mixtral">
            tiny-mixtral
          </Anchor>
        </Empty>
      </>
    );
  }
  return (
    <>
      <PageHeader title={t("play.title")}>
        <CopyAs
          make={(kind) => {
            const uid = models[0] ?? "";
            const [route, fields] = prompt
              ? body(uid, prompt, turns[uid] ?? [])
              : body(uid, sent, earlier(turns[uid], runs[uid]));
            return snippet(kind, { route, body: fields, endpoint: BASE, keyed: key.get() !== "" });
          }}
        />
        <Button variant="default" leftSection={<History size={16} aria-hidden />} onClick={open}>
          {t("play.history")}
        </Button>
      </PageHeader>
      <Stack>
        <Group align="flex-end" gap="sm">
          <MultiSelect
            style={{ flex: "1 1 14rem" }}
            label={t("play.models")}
            data={[...new Set([...ready.map((model) => model.id), ...models])]}
            value={models}
            onChange={(next) => change({ models: next.join(",") })}
          />
          <SegmentedControl
            aria-label={t("play.mode")}
            value={mode}
            onChange={(next) => {
              change({ mode: next === "completion" ? next : null });
              setRuns({});
            }}
            data={[
              { value: "chat", label: t("play.chat"), disabled: !chats },
              { value: "completion", label: t("play.completion") },
            ]}
          />
        </Group>
        <Fields
          mode={mode}
          system={system}
          setSystem={setSystem}
          sampling={{ ...NOTHING, ...sampling }}
          change={(name, value) => {
            setSampling({ ...NOTHING, ...sampling, [name]: value });
            setBad(null);
          }}
          bad={bad}
        />
        <SimpleGrid cols={{ base: 1, md: Math.min(models.length, 3) || 1 }}>
          {models.map((uid) => (
            <Answers
              key={uid}
              uid={uid}
              turns={mode === "chat" ? (turns[uid] ?? []) : []}
              run={runs[uid]}
              sent={mode === "chat" ? sent : ""}
            />
          ))}
        </SimpleGrid>
        <Box pos="sticky" bottom={0} bg="var(--mantine-color-body)" pt="xs" pb="sm">
          <Textarea
            label={mode === "chat" ? t("play.message") : t("play.prompt")}
            placeholder={mode === "chat" ? t("play.messageHint") : "The old elephant"}
            value={prompt}
            onChange={(event) => setPrompt(event.currentTarget.value)}
            onKeyDown={(event) => {
              const goes = event.key === "Enter" && (event.ctrlKey || event.metaKey);
              if (goes && prompt && !isRunning) {
                event.preventDefault();
                void send();
              }
            }}
            autosize
            minRows={2}
            maxRows={10}
            mb="xs"
          />
          <Group justify="space-between">
            <Group gap="xs">
              {isRunning ? (
                <Button
                  color="red"
                  leftSection={<Square size={16} aria-hidden />}
                  onClick={() => leaving.current?.abort()}
                >
                  {t("play.stop")}
                </Button>
              ) : (
                <Button
                  leftSection={<Send size={16} aria-hidden />}
                  disabled={!prompt || models.length === 0}
                  onClick={() => void send()}
                >
                  {mode === "chat" ? t("play.send") : t("play.continue")}
                </Button>
              )}
              <Text size="xs" c="dimmed" visibleFrom="sm">
                {t("play.keys")}
              </Text>
            </Group>
            {(Object.keys(turns).length > 0 || Object.keys(runs).length > 0) && !isRunning && (
              <Button
                variant="subtle"
                color="gray"
                leftSection={<Eraser size={16} aria-hidden />}
                onClick={clear}
              >
                {t("play.anew")}
              </Button>
            )}
          </Group>
        </Box>
      </Stack>
      <Drawer
        opened={shows}
        onClose={close}
        position="right"
        title={t("play.history")}
        closeButtonProps={{ "aria-label": t("nav.close") }}
      >
        <Past restore={restore} />
      </Drawer>
    </>
  );
}

/** The turns without the one that was just answered: it is shown with its figures, and asked again. */
function earlier(turns: readonly Turn[] = [], run?: Run): readonly Turn[] {
  return run && run.state !== "running" && run.choices[0].text ? turns.slice(0, -2) : turns;
}

/** One model's conversation, or its continuation of the prompt. */
function Answers(props: { uid: string; turns: Turn[]; run: Run | undefined; sent: string }) {
  const { t } = useTranslation();
  const { uid, run } = props;
  const turns = earlier(props.turns, run);
  return (
    <Card withBorder padding="sm" data-answers={uid} component="section" aria-label={uid}>
      <Title order={2} size="h6" mb="xs" className="wrap">
        {uid}
      </Title>
      <Stack gap="sm">
        {turns.map((turn, number) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: turns are only added at the end
          <Said key={number} turn={turn} />
        ))}
        {run && props.sent && <Said turn={{ role: "user", content: props.sent }} />}
        {run ? (
          <RunView run={run} uid={uid} />
        ) : (
          turns.length === 0 && (
            <Text size="sm" c="dimmed">
              {t("play.nothing")}
            </Text>
          )
        )}
      </Stack>
    </Card>
  );
}

function Said({ turn }: { turn: Turn }) {
  const { t } = useTranslation();
  const mine = turn.role === "user";
  return (
    <Box
      p={mine ? "xs" : 0}
      bg={mine ? "light-dark(var(--mantine-color-gray-1), var(--mantine-color-dark-6))" : undefined}
      style={{ borderRadius: "var(--mantine-radius-md)" }}
    >
      <Text size="xs" c="dimmed">
        {t(`play.role.${turn.role}`)}
      </Text>
      <Text style={{ whiteSpace: "pre-wrap" }} className="wrap">
        {turn.content}
      </Text>
    </Box>
  );
}

function Fields(props: {
  mode: Mode;
  system: string;
  setSystem: (text: string) => void;
  sampling: Sampling;
  change: (name: keyof Sampling, value: string) => void;
  bad: BadField | null;
}) {
  const { t } = useTranslation();
  const { sampling, change, bad } = props;
  const wrong = (name: keyof Sampling) =>
    bad?.field === name
      ? bad.message || t(name === "tools" ? "play.noList" : "play.noObject")
      : undefined;
  const [opened, setOpened] = useState<string | null>(null);
  useEffect(() => {
    if (bad) setOpened("fields");
  }, [bad]);
  return (
    <Accordion variant="contained" value={opened} onChange={setOpened}>
      <Accordion.Item value="fields">
        <Accordion.Control>{t("play.fields")}</Accordion.Control>
        <Accordion.Panel>
          <Stack gap="sm">
            {props.mode === "chat" && (
              <Textarea
                label={t("play.system")}
                value={props.system}
                onChange={(event) => props.setSystem(event.currentTarget.value)}
                autosize
                minRows={1}
                maxRows={6}
              />
            )}
            <SimpleGrid cols={{ base: 2, xs: 3, md: 4, lg: 6 }} spacing="sm">
              {NUMBERS.map(({ name, min, max, step, ...more }) => (
                <NumberInput
                  key={name}
                  size="sm"
                  label={name}
                  labelProps={{ fz: "xs", className: "wrap" }}
                  value={sampling[name]}
                  onChange={(value) => change(name, String(value))}
                  min={min}
                  max={max}
                  step={step}
                  allowDecimal={step < 1}
                  placeholder={"left" in more ? more.left : t("play.left")}
                  error={wrong(name)}
                />
              ))}
            </SimpleGrid>
            <Group gap="lg">
              {FLAGS.filter((name) => isOf(props.mode, name)).map((name) => (
                <Checkbox
                  key={name}
                  label={name}
                  description={t(`play.flag.${name}`)}
                  checked={sampling[name] !== ""}
                  onChange={(event) => change(name, event.currentTarget.checked ? "true" : "")}
                />
              ))}
            </Group>
            <SimpleGrid cols={{ base: 1, sm: 2 }} spacing="sm">
              <Textarea
                label="stop"
                description={t("play.stopHint")}
                value={sampling.stop}
                onChange={(event) => change("stop", event.currentTarget.value)}
                autosize
                minRows={1}
                maxRows={6}
              />
              <JsonInput
                label="logit_bias"
                description={t("play.biasHint")}
                value={sampling.logit_bias}
                onChange={(value) => change("logit_bias", value)}
                error={wrong("logit_bias")}
                validationError={wrong("logit_bias") ?? t("play.noJson")}
                autosize
                minRows={1}
              />
              <JsonInput
                label={t("play.schema")}
                description={t("play.schemaHint")}
                value={sampling.schema}
                onChange={(value) => change("schema", value)}
                error={wrong("schema")}
                validationError={wrong("schema") ?? t("play.noJson")}
                autosize
                minRows={2}
                maxRows={12}
              />
              {isOf(props.mode, "tools") && (
                <JsonInput
                  label={t("play.toolsField")}
                  description={t("play.toolsHint")}
                  value={sampling.tools}
                  onChange={(value) => change("tools", value)}
                  error={wrong("tools")}
                  validationError={wrong("tools") ?? t("play.noJson")}
                  autosize
                  minRows={2}
                  maxRows={12}
                />
              )}
              <JsonInput
                label={t("play.more")}
                description={t("play.moreHint")}
                placeholder={'{"typical_p": 0.9}'}
                value={sampling.more}
                onChange={(value) => change("more", value)}
                error={wrong("more")}
                validationError={wrong("more") ?? t("play.noJson")}
                autosize
                minRows={2}
                maxRows={12}
              />
            </SimpleGrid>
          </Stack>
        </Accordion.Panel>
      </Accordion.Item>
    </Accordion>
  );
}

function CopyAs({ make }: { make: (kind: Snippet) => string }) {
  const { t } = useTranslation();
  const copy = async (kind: Snippet) => {
    try {
      await copyText(make(kind));
      notifications.show({ message: t("copy.done") });
    } catch (error) {
      notifications.show({ color: "red", title: t("copy.failed"), message: String(error) });
    }
  };
  return (
    <Menu>
      <Menu.Target>
        <Button variant="default" leftSection={<Clipboard size={16} aria-hidden />}>
          {t("play.copyAs")}
        </Button>
      </Menu.Target>
      <Menu.Dropdown>
        {LANGUAGES.map((kind) => (
          <Menu.Item key={kind} onClick={() => void copy(kind)}>
            {t(`play.snippet.${kind}`)}
          </Menu.Item>
        ))}
      </Menu.Dropdown>
    </Menu>
  );
}

function Past({ restore }: { restore: (entry: Entry) => void }) {
  const { t, i18n } = useTranslation();
  const entries = useStore(history);
  if (entries.length === 0) return <Empty title={t("play.noHistory")}>{t("play.kept")}</Empty>;
  return (
    <Stack gap="xs">
      <Group justify="space-between">
        <Text size="sm" c="dimmed">
          {t("play.kept")}
        </Text>
        <Button size="compact-sm" variant="subtle" color="red" onClick={() => forget()}>
          {t("play.forgetAll")}
        </Button>
      </Group>
      {entries.map((entry) => (
        <Card key={entry.id} withBorder padding="xs">
          <Group justify="space-between" wrap="nowrap" align="flex-start">
            <Box style={{ minWidth: 0 }}>
              <Text size="xs" c="dimmed">
                {moment(entry.at / 1000, i18n.language)} · {entry.models.join(", ")}
              </Text>
              <Anchor component="button" ta="left" onClick={() => restore(entry)} lineClamp={2}>
                {entry.prompt}
              </Anchor>
              <Text size="sm" c="dimmed" lineClamp={2}>
                {Object.values(entry.answers)[0]?.text}
              </Text>
            </Box>
            <Tooltip label={t("play.forget")}>
              <ActionIcon
                variant="subtle"
                color="gray"
                aria-label={t("play.forget")}
                onClick={() => forget(entry.id)}
              >
                <Trash2 size={16} />
              </ActionIcon>
            </Tooltip>
          </Group>
        </Card>
      ))}
    </Stack>
  );
}

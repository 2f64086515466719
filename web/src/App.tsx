import {
  ActionIcon,
  Alert,
  AppShell,
  Badge,
  Burger,
  Group,
  Menu,
  NavLink,
  ScrollArea,
  Text,
  Tooltip,
  UnstyledButton,
  useComputedColorScheme,
  useMantineColorScheme,
} from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { Notifications } from "@mantine/notifications";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import {
  Activity,
  Boxes,
  Cpu,
  Download,
  KeyRound,
  Languages,
  LogOut,
  MemoryStick,
  MessagesSquare,
  Moon,
  Server,
  Sun,
  WifiOff,
} from "lucide-react";
import { Suspense, useEffect, useRef } from "react";
import { useTranslation } from "react-i18next";
import { Link, Navigate, Outlet, useLocation } from "react-router";
import { api, data, key, locked, signOut } from "./api/client";
import { connection, follow } from "./api/events";
import { useCaller, useInstances } from "./api/queries";
import { setLanguage } from "./i18n";
import { LANGUAGES, type Language } from "./i18n/preferred";
import { useStore } from "./lib/store";
import { SignIn } from "./pages/SignIn";

const PLAYGROUND = "/playground";
const PAGES = [
  { path: "/", text: "nav.zoo", Icon: Boxes, also: ["/models", "/launch"] },
  { path: "/running", text: "nav.running", Icon: Activity, also: [] },
  { path: PLAYGROUND, text: "nav.playground", Icon: MessagesSquare, also: [] },
  { path: "/memory", text: "nav.memory", Icon: MemoryStick, also: [] },
  { path: "/downloads", text: "nav.downloads", Icon: Download, also: [] },
  { path: "/cluster", text: "nav.cluster", Icon: Server, also: [] },
  { path: "/keys", text: "nav.keys", Icon: KeyRound, also: [] },
] as const;

/** The frame around every page: where one can go, and how the gateway is. */
export function App() {
  const { t } = useTranslation();
  const [opened, { toggle, close }] = useDisclosure();
  const { pathname } = useLocation();
  const isLocked = useStore(locked);
  const caller = useCaller();
  // A key of scope inference may ask models, and nothing else.
  const asks = caller.data?.scope === "inference";
  useEvents(!isLocked && caller.data?.scope === "admin");
  const shown = useRef(pathname);
  // biome-ignore lint/correctness/useExhaustiveDependencies: going to another page closes the menu
  useEffect(() => {
    close();
    // The link that led here may have gone with its page.
    if (shown.current !== pathname && document.activeElement === document.body) focusMain();
    shown.current = pathname;
  }, [pathname]);

  if (isLocked) return <SignIn />;
  if (asks && pathname !== PLAYGROUND) return <Navigate to={PLAYGROUND} replace />;
  const pages = PAGES.filter(({ path }) => !asks || path === PLAYGROUND);
  return (
    <AppShell
      header={{ height: 52 }}
      navbar={{ width: 216, breakpoint: "sm", collapsed: { mobile: !opened } }}
      padding={{ base: "sm", sm: "lg" }}
    >
      <UnstyledButton className="skip" onClick={focusMain}>
        {t("nav.skip")}
      </UnstyledButton>
      <Notifications position="bottom-right" />
      <AppShell.Header>
        <Group h="100%" px="sm" justify="space-between" wrap="nowrap">
          <Group gap="sm" wrap="nowrap">
            <Burger
              opened={opened}
              onClick={toggle}
              hiddenFrom="sm"
              size="sm"
              aria-label={t("nav.menu")}
              aria-expanded={opened}
            />
            <UnstyledButton component={Link} to="/" aria-label={t("nav.home")}>
              <Group gap={8} wrap="nowrap">
                <img src="./favicon.svg" alt="" width={26} height={26} />
                <Text fw={700} size="lg">
                  Paddock
                </Text>
              </Group>
            </UnstyledButton>
          </Group>
          <Group gap="xs" wrap="nowrap">
            {!asks && <Connection />}
            <LanguageMenu />
            <SchemeButton />
            <SignOutButton />
          </Group>
        </Group>
      </AppShell.Header>
      <AppShell.Navbar
        p="xs"
        aria-label={t("nav.pages")}
        className={opened ? undefined : "closed"}
        onKeyDown={(event) => event.key === "Escape" && close()}
      >
        <AppShell.Section grow component={ScrollArea}>
          {pages.map(({ path, text, Icon, also }) => {
            const here =
              path === "/"
                ? pathname === "/" || also.some((one) => pathname.startsWith(one))
                : pathname === path || pathname.startsWith(`${path}/`);
            return (
              <NavLink
                key={path}
                component={Link}
                to={path}
                label={t(text)}
                leftSection={<Icon size={18} aria-hidden />}
                rightSection={path === "/running" ? <RunningCount /> : undefined}
                active={here}
                aria-current={here ? "page" : undefined}
                style={{ borderRadius: "var(--mantine-radius-md)" }}
              />
            );
          })}
        </AppShell.Section>
        <AppShell.Section>
          <Version />
        </AppShell.Section>
      </AppShell.Navbar>
      <AppShell.Main id="main" tabIndex={-1} style={{ outline: "none", minWidth: 0 }}>
        <Lost />
        <Suspense>
          <Outlet />
        </Suspense>
      </AppShell.Main>
    </AppShell>
  );
}

function focusMain() {
  document.getElementById("main")?.focus({ preventScroll: true });
}

/** Follows the gateway's events while the page is open and the key is right. */
function useEvents(open: boolean) {
  const client = useQueryClient();
  const used = useStore(key);
  // biome-ignore lint/correctness/useExhaustiveDependencies: another key is another stream
  useEffect(() => {
    if (!open) return;
    const leaving = new AbortController();
    void follow(client, leaving.signal);
    return () => leaving.abort();
  }, [client, open, used]);
}

function Connection() {
  const { t } = useTranslation();
  const state = useStore(connection);
  const color = { live: "green", connecting: "gray", lost: "red" }[state];
  return (
    <Tooltip label={t(`connection.${state}`)}>
      <Badge variant="dot" color={color} role="status" tt="none" visibleFrom="xs">
        {t(`connection.${state}`)}
      </Badge>
    </Tooltip>
  );
}

function Lost() {
  const { t } = useTranslation();
  if (useStore(connection) !== "lost") return null;
  return (
    <Alert color="red" icon={<WifiOff size={18} />} title={t("lost.title")} mb="md" role="alert">
      {t("lost.text", { address: window.location.host })}
    </Alert>
  );
}

function RunningCount() {
  const { data: models } = useInstances();
  const { t } = useTranslation();
  if (!models?.length) return null;
  return (
    <Badge
      size="sm"
      variant="light"
      color="gray"
      circle={models.length < 10}
      aria-label={t("nav.launched", { count: models.length })}
    >
      {models.length}
    </Badge>
  );
}

function LanguageMenu() {
  const { t, i18n } = useTranslation();
  return (
    <Menu>
      <Menu.Target>
        <ActionIcon variant="subtle" color="gray" aria-label={t("nav.language")}>
          <Languages size={18} />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        {Object.entries(LANGUAGES).map(([code, name]) => (
          <Menu.Item
            key={code}
            lang={code}
            onClick={() => setLanguage(code as Language)}
            fw={i18n.language === code ? 700 : undefined}
          >
            {name}
          </Menu.Item>
        ))}
      </Menu.Dropdown>
    </Menu>
  );
}

function SchemeButton() {
  const { t } = useTranslation();
  const { setColorScheme } = useMantineColorScheme();
  const scheme = useComputedColorScheme("light");
  const other = scheme === "dark" ? "light" : "dark";
  return (
    <Tooltip label={t(`nav.${other}`)}>
      <ActionIcon
        variant="subtle"
        color="gray"
        aria-label={t(`nav.${other}`)}
        onClick={() => setColorScheme(other)}
      >
        {scheme === "dark" ? <Sun size={18} /> : <Moon size={18} />}
      </ActionIcon>
    </Tooltip>
  );
}

function SignOutButton() {
  const { t } = useTranslation();
  const client = useQueryClient();
  if (!useStore(key)) return null;
  const leave = () => {
    signOut();
    client.clear();
    locked.set(true);
  };
  return (
    <Tooltip label={t("nav.signOut")}>
      <ActionIcon variant="subtle" color="gray" aria-label={t("nav.signOut")} onClick={leave}>
        <LogOut size={18} />
      </ActionIcon>
    </Tooltip>
  );
}

function Version() {
  const { t } = useTranslation();
  const { data: health } = useQuery({
    queryKey: ["health"],
    queryFn: () => data(api.GET("/healthz")),
    staleTime: Number.POSITIVE_INFINITY,
  });
  return (
    <Group gap="xs" px="xs" py={6} justify="space-between">
      <Text size="xs" c="dimmed">
        <Cpu size={12} aria-hidden /> {health ? `Paddock ${health.version}` : "Paddock"}
      </Text>
      <Text size="xs" component="a" href="./docs" c="var(--mantine-color-anchor)">
        {t("nav.api")}
      </Text>
    </Group>
  );
}

import {
  type CSSVariablesResolver,
  createTheme,
  defaultVariantColorsResolver,
  type MantineColorsTuple,
  type VariantColorsResolver,
} from "@mantine/core";

const paddock: MantineColorsTuple = [
  "#e6f7f0",
  "#d0ebe0",
  "#a2d8c1",
  "#70c3a0",
  "#47b284",
  "#2da873",
  "#1ca26a",
  "#0b7d51",
  "#0b6e4f",
  "#065a3e",
];

/** Mantine's light variant, with text that is dark enough to be read on it (WCAG AA). */
const variants: VariantColorsResolver = (input) => {
  const colors = defaultVariantColorsResolver(input);
  if (["light", "subtle", "transparent", "outline"].includes(input.variant) && input.color) {
    const name = input.color.split(".")[0];
    if (name && name in input.theme.colors) {
      const dark = `color-mix(in srgb, var(--mantine-color-${name}-9), black 35%)`;
      colors.color = `light-dark(${dark}, var(--mantine-color-${name}-2))`;
    }
  }
  return colors;
};

export const theme = createTheme({
  primaryColor: "paddock",
  primaryShade: { light: 8, dark: 8 },
  colors: { paddock },
  autoContrast: true,
  variantColorResolver: variants,
  fontFamily:
    'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif',
  fontFamilyMonospace: 'ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace',
  respectReducedMotion: true,
  defaultRadius: "md",
  cursorType: "pointer",
});

/** Quiet text still has to be read: 4.5 to 1 on the page's own background. */
export const variables: CSSVariablesResolver = () => ({
  variables: {},
  light: {
    "--mantine-color-dimmed": "#5c636a",
    "--mantine-color-placeholder": "#6b7280",
    "--mantine-color-anchor": "var(--mantine-color-paddock-9)",
    "--mantine-color-error": "#c92a2a",
  },
  dark: {
    "--mantine-color-dimmed": "#adb5bd",
    "--mantine-color-placeholder": "#9aa1a8",
    "--mantine-color-anchor": "var(--mantine-color-paddock-3)",
    "--mantine-color-error": "#ff8787",
  },
});

export const LANGUAGES = { en: "English", zh: "中文" } as const;
export type Language = keyof typeof LANGUAGES;

/** The reader's choice, else the first of the browser's languages that there is. */
export function preferred(stored: string | null, browser: readonly string[]): Language {
  const wanted = [stored ?? "", ...browser].map((one) => one.toLowerCase().split("-")[0]);
  return (wanted.find((one) => one && one in LANGUAGES) as Language | undefined) ?? "en";
}

import i18next from "i18next";
import { initReactI18next } from "react-i18next";
import { en } from "./en";
import { zh } from "./zh";

export type Texts = typeof en;
export const LANGUAGES = { en: "English", zh: "中文" } as const;
export type Language = keyof typeof LANGUAGES;

const STORED = "paddock.language";

declare module "i18next" {
  interface CustomTypeOptions {
    defaultNS: "translation";
    resources: { translation: Texts };
    returnNull: false;
  }
}

/** The reader's choice, else the first of the browser's languages that there is. */
export function preferred(stored: string | null, browser: readonly string[]): Language {
  const wanted = [stored ?? "", ...browser].map((one) => one.toLowerCase().split("-")[0]);
  return (wanted.find((one) => one && one in LANGUAGES) as Language | undefined) ?? "en";
}

export function setLanguage(language: Language): void {
  localStorage.setItem(STORED, language);
  document.documentElement.lang = language;
  void i18next.changeLanguage(language);
}

const language = preferred(localStorage.getItem(STORED), navigator.languages);
document.documentElement.lang = language;
void i18next.use(initReactI18next).init({
  lng: language,
  fallbackLng: "en",
  resources: { en: { translation: en }, zh: { translation: zh } },
  interpolation: { escapeValue: false }, // React escapes
});

import i18next from "i18next";
import { initReactI18next } from "react-i18next";
import { en } from "./en";
import { type Language, preferred } from "./preferred";
import { zh } from "./zh";

export type Texts = typeof en;

const STORED = "paddock.language";

declare module "i18next" {
  interface CustomTypeOptions {
    defaultNS: "translation";
    resources: { translation: Texts };
    returnNull: false;
  }
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

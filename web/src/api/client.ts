import createClient from "openapi-fetch";
import { Store } from "../lib/store";
import type { components, paths } from "./schema";

export type Schemas = components["schemas"];
export type Diagnosis = Schemas["Diagnosis"];
export type Instance = Schemas["Instance"];
export type Plan = Schemas["LaunchPlan"];
export type Launch = Schemas["Launch"];

/** Where the gateway is: beside this page, also behind a proxy that gives it a folder. */
export const BASE = new URL(".", document.baseURI).href.replace(/\/$/, "");

const STORED = "paddock.key";

/** The API key that requests carry; empty where none is asked for. */
export const key = new Store(sessionStorage.getItem(STORED) ?? localStorage.getItem(STORED) ?? "");
/** Whether the gateway has refused the key that we have, or that we have none. */
export const locked = new Store(false);

export function signIn(value: string, remember: boolean): void {
  (remember ? localStorage : sessionStorage).setItem(STORED, value);
  key.set(value);
  locked.set(false);
}

export function signOut(): void {
  localStorage.removeItem(STORED);
  sessionStorage.removeItem(STORED);
  key.set("");
}

export function keyHeader(value = key.get()): Record<string, string> {
  return value ? { Authorization: `Bearer ${value}` } : {};
}

/** What the gateway said was wrong; `status` 0: it could not be reached. */
export class ApiError extends Error {
  readonly status: number;
  /** The error's own fields, such as `diagnosis`, `refused`, `alternatives`. */
  readonly fields: Record<string, unknown>;

  constructor(status: number, message: string, fields: Record<string, unknown> = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.fields = fields;
  }

  get code(): string {
    return String(this.fields.code ?? "");
  }

  get diagnosis(): Diagnosis | undefined {
    return this.fields.diagnosis as Diagnosis | undefined;
  }

  static async of(response: Response): Promise<ApiError> {
    const text = await response.text();
    try {
      const { error } = JSON.parse(text);
      return new ApiError(response.status, String(error.message), error);
    } catch {
      return new ApiError(response.status, text.slice(0, 500) || response.statusText);
    }
  }
}

export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError(0, error instanceof Error ? error.message : String(error));
}

/** `fetch` with the key; an answer that is an error is thrown as `ApiError`. */
export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const used = key.get();
  const headers = { ...keyHeader(used), ...(init.headers as Record<string, string> | undefined) };
  return settled(await fetch(BASE + path, { ...init, headers }).catch(unreachable), used);
}

function unreachable(error: unknown): never {
  if (error instanceof DOMException && error.name === "AbortError") throw error;
  throw new ApiError(0, error instanceof Error ? error.message : String(error));
}

async function settled(response: Response, used: string): Promise<Response> {
  if (response.ok) return response;
  // The answer to an older key says nothing of the one that we have now.
  if (response.status === 401 && used === key.get()) locked.set(true);
  throw await ApiError.of(response);
}

/** The typed client. Its calls resolve to data, or throw `ApiError`. */
export const api = createClient<paths>({
  baseUrl: BASE,
  fetch: async (input) => {
    const used = key.get();
    for (const [name, value] of Object.entries(keyHeader(used))) input.headers.set(name, value);
    return settled(await fetch(input).catch(unreachable), used);
  },
});

/** The data of a call of `api`: errors were thrown before. */
export async function data<T>(call: Promise<{ data?: T }>): Promise<T> {
  return (await call).data as T;
}

// Names and ids may hold slashes (`hf:owner/name`), which routes that end in `*` take as they are.
const safe = (name: string) => name.split("/").map(encodeURIComponent).join("/");

export const modelPath = (name: string) => `/models/${safe(name)}`;
export const runningPath = (uid: string) => `/running/${safe(uid)}`;

/** The launch page of a model; what is empty is left open. */
export function launchPath(name: string, wanted: Record<string, string | undefined> = {}): string {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(wanted)) if (value) query.set(key, value);
  const text = query.toString();
  return `/launch/${safe(name)}${text ? `?${text}` : ""}`;
}

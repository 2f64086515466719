// The page that `api/client.ts` finds itself on.
const store = () => {
  const kept = new Map<string, string>();
  return {
    getItem: (name: string) => kept.get(name) ?? null,
    setItem: (name: string, value: string) => kept.set(name, value),
    removeItem: (name: string) => kept.delete(name),
  };
};

Object.assign(globalThis, {
  document: { baseURI: "http://127.0.0.1:9997/" },
  localStorage: store(),
  sessionStorage: store(),
});

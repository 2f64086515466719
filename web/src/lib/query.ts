import { useSearchParams } from "react-router";

/** The state of a page that stands in its address, so that it can be linked to and gone back to. */
export function useQueryState() {
  const [query, setQuery] = useSearchParams();
  /** Changes some; null and empty ones go. A text that is typed replaces the address it began at. */
  const change = (
    changes: Record<string, string | readonly string[] | boolean | null | undefined>,
    how: { replace?: boolean } = { replace: true },
  ) =>
    setQuery((before) => {
      const next = new URLSearchParams(before);
      for (const [name, value] of Object.entries(changes)) {
        next.delete(name);
        const values = Array.isArray(value) ? value : [value];
        for (const one of values) if (one) next.append(name, one === true ? "1" : String(one));
      }
      return next;
    }, how);
  return { query, change };
}

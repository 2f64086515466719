import { useEffect, useLayoutEffect, useRef } from "react";

const NEAR_PIXELS = 80;

/** Keeps the end of the page in view while `content` grows, from the returned call on until the
 * reader scrolls away from there.
 */
export function useFollowing(content: unknown): () => void {
  const follows = useRef(false);
  useEffect(() => {
    const scrolled = () => {
      const { scrollHeight } = document.documentElement;
      if (scrollHeight - window.innerHeight - window.scrollY > NEAR_PIXELS) follows.current = false;
    };
    window.addEventListener("scroll", scrolled, { passive: true });
    return () => window.removeEventListener("scroll", scrolled);
  }, []);
  // biome-ignore lint/correctness/useExhaustiveDependencies: each change may have moved the end
  useLayoutEffect(() => {
    if (follows.current) window.scrollTo({ top: document.documentElement.scrollHeight });
  }, [content]);
  return () => {
    follows.current = true;
  };
}

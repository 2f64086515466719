/** Sizes as the command line writes them: decimal units, three significant digits. */
export function bytes(count: number | null | undefined): string {
  if (count === null || count === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let value = Math.abs(count);
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  const text = value.toFixed(digits);
  return `${count < 0 ? "−" : ""}${text} ${units[unit]}`;
}

/** A share from 0 to 1 as whole percent; 100 only where it is all. */
export function percent(share: number): string {
  const whole = share >= 1 ? 100 : Math.min(99, Math.round(share * 100));
  return `${whole} %`;
}

/** What a log probability stands for, as percent. */
export function probability(logprob: number): string {
  const value = 100 * Math.exp(logprob);
  if (value < 0.01) return "< 0.01 %";
  return `${value.toFixed(value < 10 ? 2 : 1)} %`;
}

/** Seconds as a person says them: `4 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const steps: [number, string, number, string][] = [
    [86400, "d", 3600, "h"],
    [3600, "h", 60, "min"],
    [60, "min", 1, "s"],
  ];
  const whole = Math.round(seconds);
  for (const [large, name, small, next] of steps) {
    if (whole < large) continue;
    const rest = Math.floor((whole % large) / small);
    return `${Math.floor(whole / large)} ${name}${rest ? ` ${rest} ${next}` : ""}`;
  }
  return `${whole} s`;
}

/** A rate of tokens, or of anything else that is counted. */
export function rate(perSecond: number | null | undefined): string {
  if (perSecond === null || perSecond === undefined || !Number.isFinite(perSecond)) return "–";
  if (perSecond < 100) return perSecond.toFixed(1);
  return new Intl.NumberFormat("en").format(Math.round(perSecond));
}

/** Billions of parameters as specs write them (`46_7`, `0_004`) for people: `46.7B`, `4M`. */
export function parameters(size: string | number): string {
  const billions = Number(String(size).replace("_", "."));
  if (!Number.isFinite(billions)) return String(size);
  if (billions < 1) return `${Number((billions * 1000).toPrecision(3))}M`;
  return billions < 1000 ? `${billions}B` : `${Number((billions / 1000).toPrecision(3))}T`;
}

/** A variant as the gateway names it (`mixtral-v0.1 46_7 gptq Int4`), with its size for people. */
export function variantText(variant: string): string {
  return variant.replace(/(?<= )\d+(_\d+)?(?= )/, parameters);
}

/** Tokens of a context: `32k` where it is a multiple of 1,024, else the number. */
export function tokens(count: number | null | undefined): string {
  if (!count) return "–";
  return count >= 1024 && count % 1024 === 0
    ? `${count / 1024}k`
    : new Intl.NumberFormat("en").format(count);
}

/** A moment as the reader's clock shows it; the day only where it is not today. */
export function moment(seconds: number, language: string, now = Date.now()): string {
  const at = new Date(seconds * 1000);
  const today = new Date(now).toDateString() === at.toDateString();
  return new Intl.DateTimeFormat(language, {
    ...(today ? {} : { day: "numeric", month: "short", year: "numeric" }),
    hour: "2-digit",
    minute: "2-digit",
    second: today ? "2-digit" : undefined,
  }).format(at);
}

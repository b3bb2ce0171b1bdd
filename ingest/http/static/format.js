// Numbers and times as text.

const COUNTED = 100_000; // where the server stops counting
const numbers = new Intl.NumberFormat("en");

export const count = (n) => (n === null || n === undefined ? "–" : numbers.format(n));

/** A count that the server stops at 100,000: then that many or more. */
export const bounded = (n) => (n >= COUNTED ? `${numbers.format(COUNTED)}+` : count(n));

export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  const hours = Math.floor(seconds / 3600);
  if (seconds < 86400) return `${hours} h ${Math.round((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.round((seconds % 86400) / 3600)} h`;
}

/** How long ago, in one unit. */
export function ago(time) {
  if (!time) return "–";
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (seconds < 2) return "now";
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const [size, unit] = units.find(([least]) => seconds >= least);
  return `${Math.floor(seconds / size)} ${unit} ago`;
}

export function perSecond(rate) {
  if (rate === null || rate === undefined) return "–";
  return `${rate >= 10 ? Math.round(rate) : rate.toFixed(1)}/s`;
}

export const clock = (time) =>
  new Date(time).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });

export const moment = (time) => (time ? new Date(time).toLocaleString("en-GB") : "–");

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

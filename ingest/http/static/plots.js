// Two plots of the last hour, a point or bar for each minute, drawn as SVG.

import { byId, h, svg } from "/static/dom.js";
import { clock, count, duration } from "/static/format.js";
import { STAGES } from "/static/tables.js";

const MINUTES = 60;
const HEIGHT = 168;
const MARGIN = { top: 10, right: 8, bottom: 22, left: 46 };

/** Every minute of the last hour, also those without rows. */
export function completeHour(minutes, now = Date.now()) {
  const known = new Map(minutes.map((minute) => [Date.parse(minute.minute), minute]));
  const last = Math.floor(now / 60_000) * 60_000;
  return Array.from({ length: MINUTES }, (_, n) => {
    const time = last - (MINUTES - 1 - n) * 60_000;
    return known.get(time) ?? { minute: new Date(time).toISOString(), succeeded: 0, failed: 0,
      ...Object.fromEntries(STAGES.map(({ name }) => [`${name}_ms`, null])) };
  });
}

/** A round number at or above `value` for the end of an axis. */
export function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((end) => end >= value);
}

export class Plots {
  constructor() {
    this.rates = new Plot(byId("plot-rates"), drawRates, describeRates);
    this.times = new Plot(byId("plot-times"), drawTimes, describeTimes);
    byId("legend-times").replaceChildren(...STAGES.map(({ name, operation }) =>
      h("li", {}, h("i", { class: `key ${name}` }), operation)));
  }

  show(minutes) {
    this.rates.show(minutes);
    this.times.show(minutes);
  }
}

class Plot {
  constructor(place, draw, describe) {
    this.draw = draw;
    this.describe = describe;
    this.place = place;
    this.tip = h("p", { class: "tip", hidden: true });
    this.minutes = [];
    place.addEventListener("pointermove", (event) => this.point(event));
    place.addEventListener("pointerleave", () => (this.tip.hidden = true));
    new ResizeObserver(() => this.redraw()).observe(place);
  }

  show(minutes) {
    this.minutes = minutes;
    this.redraw();
  }

  redraw() {
    const width = this.place.clientWidth;
    if (!width || !this.minutes.length) return;
    this.area = { width, left: MARGIN.left, right: width - MARGIN.right,
      top: MARGIN.top, bottom: HEIGHT - MARGIN.bottom };
    const image = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT,
      role: "img", "aria-label": this.describe(this.minutes) });
    image.append(...timeAxis(this.area, this.minutes), ...this.draw(this.area, this.minutes));
    this.place.replaceChildren(image, this.tip);
  }

  point(event) {
    if (!this.area) return;
    const x = event.clientX - this.place.getBoundingClientRect().left;
    const n = Math.floor(((x - this.area.left) / (this.area.right - this.area.left)) * MINUTES);
    const minute = this.minutes[Math.max(0, Math.min(MINUTES - 1, n))];
    this.tip.replaceChildren(h("b", {}, clock(minute.minute)), ...this.lines(minute));
    this.tip.hidden = false;
    const half = this.tip.offsetWidth / 2;
    this.tip.style.setProperty("left", `${Math.max(half, Math.min(this.area.width - half, x))}px`);
  }

  lines(minute) {
    const texts = this.draw === drawRates
      ? [`${count(minute.succeeded)} done`, `${count(minute.failed)} failed`]
      : STAGES.map(({ name, operation }) => `${operation} ${duration(minute[`${name}_ms`])}`);
    return texts.map((text) => h("span", {}, text));
  }
}

function timeAxis({ left, right, bottom }, minutes) {
  const step = (right - left) / MINUTES;
  return minutes.flatMap((minute, n) => {
    if (new Date(minute.minute).getMinutes() % 15) return [];
    const x = left + (n + 0.5) * step;
    return [svg("line", { class: "tick", x1: x, x2: x, y1: bottom, y2: bottom + 4 }),
      svg("text", { class: "label", x, y: bottom + 16, "text-anchor": "middle" },
        clock(minute.minute))];
  });
}

function valueAxis({ left, right, top, bottom }, values, write) {
  return values.flatMap(([value, share]) => {
    const y = bottom - share * (bottom - top);
    return [svg("line", { class: value ? "grid" : "axis", x1: left, x2: right, y1: y, y2: y }),
      svg("text", { class: "label", x: left - 8, y: y + 4, "text-anchor": "end" }, write(value))];
  });
}

function drawRates(area, minutes) {
  const { left, right, top, bottom } = area;
  const end = roundUp(Math.max(4, ...minutes.map((minute) => minute.succeeded + minute.failed)));
  const step = (right - left) / MINUTES;
  const height = (n) => (n / end) * (bottom - top);
  const bars = minutes.flatMap((minute, n) => {
    const x = left + n * step + Math.min(1, step * 0.12);
    const width = Math.max(1, step - 2 * Math.min(1, step * 0.12));
    const failed = minute.failed ? Math.max(2, height(minute.failed)) : 0;
    const done = height(minute.succeeded);
    return [
      minute.succeeded ? svg("rect", { class: "bar done", x, width, y: bottom - failed - done,
        height: done, rx: Math.min(2, width / 3) }) : null,
      failed ? svg("rect", { class: "bar failed", x, width, y: bottom - failed,
        height: failed }) : null,
    ].filter(Boolean);
  });
  return [...valueAxis(area, [[end, 1], [end / 2, 0.5], [0, 0]], count), ...bars];
}

function drawTimes(area, minutes) {
  const { left, right, top, bottom } = area;
  const values = minutes.flatMap((minute) => STAGES.map(({ name }) => minute[`${name}_ms`]));
  const end = roundUp(Math.max(10, ...values.filter(Boolean)));
  const step = (right - left) / MINUTES;
  const lines = STAGES.flatMap(({ name: stage }) => {
    const points = minutes.map((minute, n) => [left + (n + 0.5) * step, minute[`${stage}_ms`]]);
    const y = (value) => bottom - (value / end) * (bottom - top);
    const isAlone = (n) => points[n - 1]?.[1] == null && points[n + 1]?.[1] == null;
    const dots = points.filter(([, value], n) => value !== null && isAlone(n));
    return [
      svg("path", { class: `line ${stage}`, d: pathOf(points, y) }),
      ...dots.map(([x, value]) =>
        svg("circle", { class: `dot ${stage}`, cx: x, cy: y(value), r: 2.5 })),
    ];
  });
  const write = (value) => (value ? duration(value) : "0");
  return [...valueAxis(area, [[end, 1], [end / 2, 0.5], [0, 0]], write), ...lines];
}

/** A line through the points that have a value; it breaks where there is none. */
function pathOf(points, y) {
  let pen = "M";
  let path = "";
  for (const [x, value] of points) {
    if (value === null) pen = "M";
    else {
      path += `${pen}${x.toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
    }
  }
  return path;
}

function describeRates(minutes) {
  const sum = (name) => minutes.reduce((all, minute) => all + minute[name], 0);
  const most = Math.max(...minutes.map((minute) => minute.succeeded));
  const done = `${count(sum("succeeded"))} documents done, at most ${count(most)} a minute`;
  return `The last hour: ${done}; ${count(sum("failed"))} failed.`;
}

function describeTimes(minutes) {
  const parts = STAGES.map(({ name, operation }) => {
    const values = minutes.map((minute) => minute[`${name}_ms`]).filter((value) => value !== null);
    if (!values.length) return `${operation}: nothing`;
    return `${operation} up to ${duration(Math.max(...values))}`;
  });
  return `95 percent of operations take less, by minute of the last hour: ${parts.join("; ")}.`;
}

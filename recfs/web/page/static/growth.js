// How what is stored grew, drawn. The table below the chart says the same.

import { language, size, t } from "./texts.js";

const place = document.getElementById("growth-chart");
const days = place ? JSON.parse(place.dataset.days) : [];
const HEIGHT = 220;
let chart = null;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function draw() {
  chart?.destroy();
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const dayOf = new Intl.DateTimeFormat(language, { day: "numeric", month: "short", timeZone: "UTC" });
  const day = (seconds) => dayOf.format(new Date(seconds * 1000));
  chart = new uPlot({
    width: place.clientWidth, height: HEIGHT, padding: [12, 12, 0, 0], cursor: { y: false, points: { size: 7 } },
    legend: { show: false }, tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.05, 1)] } },
    axes: [
      { ...axis, values: (_, ticks) => ticks.map(day), space: 70, size: 30, incrs: [1, 2, 5, 10, 30, 60, 90].map((each) => each * 86400) },
      { ...axis, values: (_, ticks) => ticks.map((tick) => size(tick)), size: 84, incrs: binary() },
    ],
    series: [{}, { stroke: colour("--accent"), fill: colour("--soft"), width: 2, points: { show: days.length < 40 } }],
    hooks: { setCursor: [hint] },
  }, [days.map((each) => each[0]), days.map((each) => each[1])], place);
}

/** Steps of 1, 2, 5 … in each unit, so that the axis has round numbers of MiB or GiB. */
function binary() {
  const found = [1, 2, 5, 10, 20, 50, 100, 200, 500];
  return [0, 1, 2, 3, 4, 5].flatMap((power) => found.map((each) => each * 1024 ** power));
}

function hint(drawn) {
  const at = drawn.cursor.idx;
  place.title = at === null || at === undefined ? "" : t("js.day_had", {
    day: new Intl.DateTimeFormat(language, { dateStyle: "medium", timeZone: "UTC" }).format(new Date(days[at][0] * 1000)),
    size: size(days[at][1]),
  });
}

if (days.length) {
  draw();
  new ResizeObserver(() => chart.setSize({ width: place.clientWidth, height: HEIGHT })).observe(place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

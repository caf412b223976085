"use strict";
const PERIOD = 5000, WINDOW = 60000, FIRST_CELL = -159, HOUR_PERIOD = 60000;
const history = [];
let hour = { models: {} };
let requests = new Map();
// Lists of requests that the reader has opened or closed, by port.
const opened = new Map();
const byId = (id) => document.getElementById(id);

// Adds text only as text nodes: names of models and disks never become markup.
function element(tag, classes, ...children) {
  const node = document.createElement(tag);
  if (classes) node.className = classes;
  node.append(...children);
  return node;
}

const none = "\u2013";
const has = (value) => value !== undefined && value !== null;
function bytes(value) {
  if (!has(value)) return none;
  let unit = 0;
  for (; value >= 1024 && unit < 5; unit++) value /= 1024;
  return value.toFixed(unit && value < 100 ? 1 : 0) + "\u00a0" + ["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit];
}
function seconds(value) {
  if (!has(value)) return none;
  if (value < 1e-3) return (value * 1e6).toFixed(0) + "\u00a0\u00b5s";
  if (value < 1) return (value * 1e3).toFixed(value < 0.01 ? 2 : value < 0.1 ? 1 : 0) + "\u00a0ms";
  return value.toFixed(value < 10 ? 2 : 1) + "\u00a0s";
}
const percent = (value) => has(value) ? (value * 100).toFixed(0) + "\u00a0%" : none;
const plain = (value, unit) => has(value) ? value.toFixed(0) + (unit || "") : none;
function perSecond(value) {
  return has(value) ? value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0) + "/s" : none;
}

// The same object at the start of the window; undefined if there is only one reading.
function before(list, same) {
  const old = history[0];
  if (history.length < 2) return undefined;
  return { since: (history[history.length - 1].at - old.at) / 1000, thing: list(old.data).find(same) || {} };
}
function rate(now, old, field) {
  if (!old || !has(now[field])) return undefined;
  return (now[field] - (old.thing[field] || 0)) / old.since;
}
const beforeOf = (model) => before((data) => data.models, (other) => other.port === model.port && other.model === model.model);

// The newest minute of the history, shown until there are two readings.
const newest = (curve) => curve && curve.length ? curve[curve.length - 1] : undefined;

// Bucket k counts durations up to 2^(k/8) seconds; within a bucket, durations are interpolated exponentially.
function quantiles(model, old, field, wanted) {
  const cells = model[field], earlier = (old && old.thing[field]) || {};
  if (!cells) return wanted.map(() => undefined);
  const counts = Object.keys(cells).map(Number).sort((a, b) => a - b)
    .map((cell) => [cell, cells[cell] - (earlier[cell] || 0)]).filter(([, count]) => count > 0);
  const total = counts.reduce((sum, [, count]) => sum + count, 0);
  return wanted.map((quantile) => {
    let rank = quantile * total;
    for (const [cell, count] of counts) {
      if (rank <= count) return 2 ** ((FIRST_CELL + cell - 2 + rank / count) / 8);
      rank -= count;
    }
    return undefined;
  });
}

function card(title, state, mood, rows, share) {
  const list = element("dl");
  if (has(share)) {
    const fill = element("i");
    fill.style.width = Math.min(100, Math.max(0, share * 100)) + "%";
    list.append(element("div", "bar", fill));
  }
  for (const [name, value, bad] of rows) list.append(element("dt", "", name), element("dd", bad ? "bad" : "", value));
  return element("section", "card", element("h3", "", element("span", "", ...[title].flat()), element("span", mood, state)), list);
}

// Plots are kept while the cards around them are replaced.
const plots = new Map();

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

// One column per minute, with cells one octave high; darker cells have more requests.
function heat(plot, columns) {
  const { ctx, bbox } = plot;
  const times = plot.data[0];
  const width = Math.max(1, Math.abs(plot.valToPos(times[0] + 60, "x", true) - plot.valToPos(times[0], "x", true)));
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.fillStyle = color("bar");
  columns.forEach((cells, index) => {
    const most = Math.max(1, ...cells.map(([, count]) => count));
    for (const [octave, count] of cells) {
      const low = plot.valToPos(2 ** (octave - 1), "y", true), high = plot.valToPos(2 ** octave, "y", true);
      ctx.globalAlpha = 0.08 + 0.4 * count / most;
      ctx.fillRect(plot.valToPos(times[index], "x", true) - width, high, width, low - high);
    }
  });
  ctx.restore();
}

function plot(id, caption, times, curves, values, columns) {
  const figure = element("figure");
  const place = element("div", "plot");
  const [first, second] = curves;
  figure.append(element("figcaption", "", caption + ": ", element("span", "key first", first.name), " ", element("span", "key second", second.name)), place);
  const last = (curve) => { const known = curve.filter(has); return known.length ? values(known[known.length - 1]) : none; };
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", caption + " in the last hour; newest: " + curves.map((curve) => curve.name + " " + last(curve.data)).join(", "));
  const axis = { stroke: color("dim"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  const scale = columns
    ? { distr: 3, log: 2, range: (_, low, high) => {
        const octaves = columns.flat().map(([octave]) => octave);
        return octaves.length ? [2 ** (Math.min(...octaves) - 1), 2 ** Math.max(...octaves)] : [0.001, 1];
      } }
    : { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] };
  const options = {
    width: 300, height: 110, legend: { show: false }, cursor: { show: false }, padding: [6, 6, 0, 0],
    scales: { x: { range: () => [times[times.length - 1] - 3600, times[times.length - 1]] }, y: scale },
    axes: [{ ...axis, size: 22, space: 60 }, { ...axis, size: 52, space: 24, values: (_, ticks) => ticks.map((tick) => has(tick) ? values(tick) : "") }],
    series: [{}, { stroke: color("bar"), width: 1.5, spanGaps: false }, { stroke: color("second"), width: 1.5, spanGaps: false }],
    hooks: columns ? { drawClear: [(made) => heat(made, columns)] } : {},
  };
  const made = new uPlot(options, [times, first.data, second.data], place);
  const fit = new ResizeObserver(() => {
    const width = Math.floor(place.clientWidth);
    if (width > 60 && width !== made.width) made.setSize({ width, height: 110 });
  });
  fit.observe(place);
  return { id, figure, end: () => { fit.disconnect(); made.destroy(); } };
}

// Stacked: each curve is drawn on top of those before it.
const STACK = ["bar", "second", "good", "warn", "bad", "dim"];
function stacked(caption, times, curves, values) {
  const sums = times.map(() => 0);
  const tops = curves.map(({ data }) => data.map((value, index) => has(value) ? (sums[index] += value) : null));
  const colors = curves.map((_, index) => color(STACK[index % STACK.length]));
  const keys = curves.flatMap(({ name }, index) => {
    const key = element("span", "key", name);
    key.style.color = colors[index];
    return [" ", key];
  });
  const figure = element("figure", "", element("figcaption", "", caption + ":", ...keys));
  const place = element("div", "plot");
  figure.append(place);
  const newestOf = (data) => { const known = data.filter(has); return known.length ? values(known[known.length - 1]) : none; };
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", caption + " in the last hour; newest: " + curves.map(({ name, data }) => name + " " + newestOf(data)).join(", "));
  const axis = { stroke: color("dim"), grid: { stroke: color("line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  // The highest first, so that the lower ones cover its lower part.
  const order = curves.map((_, index) => index).reverse();
  const made = new uPlot({
    width: 300, height: 110, legend: { show: false }, cursor: { show: false }, padding: [6, 6, 0, 0],
    scales: { x: { range: () => [times[times.length - 1] - 3600, times[times.length - 1]] }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: [{ ...axis, size: 22, space: 60 }, { ...axis, size: 52, space: 24, values: (_, ticks) => ticks.map((tick) => has(tick) ? values(tick) : "") }],
    series: [{}, ...order.map((index) => ({ stroke: colors[index], fill: colors[index], width: 1, spanGaps: false, points: { show: false } }))],
  }, [times, ...order.map((index) => tops[index])], place);
  const fit = new ResizeObserver(() => {
    const width = Math.floor(place.clientWidth);
    if (width > 60 && width !== made.width) made.setSize({ width, height: 110 });
  });
  fit.observe(place);
  return { figure, end: () => { fit.disconnect(); made.destroy(); } };
}

// Creates the plots of a model.
function plotsOf(port) {
  const model = hour.models[port];
  if (!model || model.t.length < 2) return [];
  const perSecondShort = (value) => value >= 100 ? value.toFixed(0) : String(+value.toPrecision(2));
  const all = [];
  if (model.first_token.p50.some(has)) {
    all.push(plot(port + "t", "time to first token", model.t, [{ name: "p50", data: model.first_token.p50 }, { name: "p99", data: model.first_token.p99 }], seconds, model.first_token.heat));
  }
  if (model.parts.length > 1) all.push(stacked("parts of the mean time to first token", model.t, model.parts, seconds));
  if (model.inter_token.p50.some(has)) {
    all.push(plot(port + "i", "inter-token latency", model.t, [{ name: "p50", data: model.inter_token.p50 }, { name: "p99", data: model.inter_token.p99 }], seconds, model.inter_token.heat));
  }
  all.push(plot(port + "r", "requests per second", model.t, [{ name: "all", data: model.requests }, { name: "failed", data: model.failed }], perSecondShort));
  return all;
}

const STATES = { unauthorised: ["unauthorised", "bad"], gone: ["gone", "bad"] };
const VERDICTS = { failing: "bad", stalled: "bad", slow: "warn", starved: "warn", well: "good" };
// What is wrong by the history of a model that answers its probes, or has none.
const saidOf = (model) => { const known = hour.models[model.port]; return known && known.said; };
function stateOf(model) {
  const said = saidOf(model);
  if (STATES[model.state]) return STATES[model.state];
  if (model.up === 0) return ["down", "bad"];
  if (said && VERDICTS[said.verdict]) {
    return [said.word + (has(said.for_seconds) ? " for " + Math.round(said.for_seconds / 60) + " min" : ""), VERDICTS[said.verdict]];
  }
  return has(model.up) ? ["up", "good"] : ["not probed", "dim"];
}
// Worst first; models that are not probed come last.
const ORDER = ["bad", "warn", "good", "dim"];
function modelOrder(a, b) {
  return ORDER.indexOf(stateOf(a)[1]) - ORDER.indexOf(stateOf(b)[1]) || Number(a.port) - Number(b.port);
}

// Generated tokens per second: the engine's count, otherwise that of the responses if all of them state it.
function tokensOf(model, old) {
  if (has(model.generated)) return rate(model, old, "generated");
  return rate(model, old, "unstated") > 0 ? undefined : rate(model, old, "stated");
}

// A name's words, between which a narrow card may break it.
function words(name) {
  return name.split(/(?<=[a-z])(?=[A-Z])|(?<=_)/).flatMap((word) => [word, element("wbr")]);
}

function table(caption, titles, rows) {
  const cells = (row, tag) => element("tr", "", ...row.map((text) => {
    const cell = element(tag, "", ...words(text));
    if (tag === "th") cell.scope = "col";
    return cell;
  }));
  return element("table", "", element("caption", "", caption), element("thead", "", cells(titles, "th")), element("tbody", "", ...rows.map((row) => cells(row, "td"))));
}

// Requests in flight and the slowest ones; open if something is wrong, until the reader says otherwise.
const LISTED = 5;
function requestsOf(port, wrong) {
  const known = requests.get(port);
  if (!known || !(known.running.length || known.slowest.length)) return [];
  const tables = [];
  if (known.running.length) {
    const rows = known.running.slice(0, LISTED).map((request) => [
      seconds(request.elapsed), seconds(request.waiting), request.phase + (has(request.events) ? ", " + plain(request.events) + " events" : ""), request.endpoint]);
    tables.push(table("Running: " + (known.in_flight > rows.length ? "the oldest " + rows.length + " of " + known.in_flight : known.in_flight), ["for", "silent for", "phase", "endpoint"], rows));
  }
  if (known.slowest.length) {
    const rows = known.slowest.slice(0, LISTED).map((request) => [
      seconds(request.duration), seconds(request.time_to_first_byte), new Date(request.ended_ms).toLocaleTimeString(), request.endpoint]);
    tables.push(table("Slowest of the last hour", ["took", "first byte", "ended", "endpoint"], rows));
  }
  const list = element("details", "", element("summary", "", "requests"), ...tables);
  list.open = opened.has(port) ? opened.get(port) : wrong;
  list.firstChild.addEventListener("click", () => opened.set(port, !list.open));
  return [list];
}

function modelCard(model) {
  const old = beforeOf(model), minute = hour.models[model.port];
  const pair = ([a, b]) => seconds(a) + " / " + seconds(b);
  const either = (value, curve) => has(value) ? value : minute && newest(minute[curve]);
  const quantilesOf = (field) => {
    const found = quantiles(model, old, field, [0.5, 0.99]);
    return old || !minute ? found : [newest(minute[field].p50), newest(minute[field].p99)];
  };
  // If requests are counted, a missing counter is zero.
  const count = (field) => rate({ [field]: has(model.requests) ? model[field] || 0 : undefined }, old, field);
  const errors = count("errors"), aborted = count("aborted");
  const [state, mood] = stateOf(model);
  const rows = [
    ["port", model.port],
    ["requests", perSecond(either(rate(model, old, "requests"), "requests"))],
    ["in flight", plain(model.in_flight)],
    ...(model.oldest > 0 ? [["oldest request, longest wait for a byte", seconds(model.oldest) + ", " + seconds(model.longest_wait)]] : []),
    ["time to first token p50 / p99", pair(quantilesOf("first_token"))],
    ["inter-token latency p50 / p99", pair(quantilesOf("inter_token"))],
    ["errors", perSecond(errors), errors > 0],
    ["aborted", perSecond(aborted), aborted > 0],
  ];
  const tokens = tokensOf(model, old), watts = rate(model, old, "joules");
  if (has(tokens)) rows.push(["generated tokens", perSecond(tokens) + (tokens > 0 && watts > 0 ? ", " + (watts / tokens).toFixed(2) + "\u00a0J each" : "")]);
  if (has(model.running)) rows.push(["engine: running / waiting", plain(model.running) + " / " + plain(model.waiting)]);
  if (has(model.kv_cache)) rows.push(["engine: KV cache", percent(model.kv_cache), model.kv_cache > 0.95]);
  if (has(model.unread_connections)) rows.push(["TLS or HTTP/2", "latency not measured"]);
  if (has(model.gpu_memory)) rows.push(["GPU memory", bytes(model.gpu_memory)]);
  const made = card(model.model, state, mood, rows);
  const said = saidOf(model);
  if (said && (mood === "bad" || mood === "warn") && VERDICTS[said.verdict] !== "good") made.insertBefore(element("p", "", said.text), made.children[1]);
  made.append(...requestsOf(model.port, mood === "bad" || mood === "warn"));
  for (const { figure } of plots.get(model.port) || []) made.append(figure);
  return made;
}
function alertCard(alert) {
  const { alertname, severity, ...others } = alert.labels;
  const about = ["model", "name", "gpu", "device", "mountpoint"].map((label) => others[label]).filter(has).join(" ");
  const mood = alert.state !== "firing" ? "dim" : severity === "critical" ? "bad" : "warn";
  const since = new Date(alert.since_ms).toLocaleTimeString();
  const made = card([...words(alertname), about ? " \u00b7 " + about : ""], alert.state + " since " + since, mood, []);
  for (const text of [alert.annotations.summary, alert.annotations.description]) {
    if (text) made.append(element("p", "", text));
  }
  return made;
}
function gpuCard(gpu) {
  // Utilization only says that some kernel ran.
  const busy = has(gpu.sm_active) ? gpu.sm_active : gpu.utilization;
  const hot = has(gpu.temperature) && has(gpu.slowdown) && gpu.temperature > gpu.slowdown - 5;
  const rows = [
    ["memory", bytes(gpu.memory_used) + " of " + bytes(gpu.memory_total)],
    ["temperature", plain(gpu.temperature, "\u00a0\u00b0C"), hot],
    ["power", plain(gpu.power, "\u00a0W") + (has(gpu.power_limit) ? " of " + plain(gpu.power_limit, "\u00a0W") : "")],
  ];
  if (gpu.used_by) rows.push(["used by", Object.entries(gpu.used_by).map(([who, much]) => who + " " + bytes(much)).join(", ")]);
  if (gpu.throttled && gpu.throttled.length) rows.push(["throttled by", gpu.throttled.join(", "), true]);
  if (gpu.xid) rows.push(["Xid errors", plain(gpu.xid), true]);
  if (gpu.ecc) rows.push(["uncorrected ECC errors", plain(gpu.ecc), true]);
  const lost = gpu.up === 0;
  return card(gpu.name + " " + gpu.index, lost ? "lost" : percent(busy), lost || gpu.xid || gpu.ecc ? "bad" : "", rows, busy);
}
function hostCard(host) {
  const old = before((data) => [data.host], () => true);
  const busy = old && has(host.cpu_seconds) ? rate(host, old, "cpu_busy_seconds") / rate(host, old, "cpu_seconds") : undefined;
  const used = has(host.memory_total) ? 1 - host.memory_available / host.memory_total : undefined;
  const stalled = (field) => percent(rate(host, old, field));
  const rows = [
    ["CPU", percent(busy), busy > 0.95],
    ["load", has(host.load) ? host.load.toFixed(1) : none],
    ["memory free", bytes(host.memory_available) + " of " + bytes(host.memory_total), used > 0.95],
    ["pressure: CPU / memory / I/O", ["pressure_cpu", "pressure_memory", "pressure_io"].map(stalled).join(" / ")],
    ["network in / out", ["received", "sent"].map((field) => has(rate(host, old, field)) ? bytes(rate(host, old, field)) + "/s" : none).join(" / ")],
  ];
  return card(host.name, percent(busy), "", rows, busy);
}
function serviceCard(unit) {
  const mood = { active: "good", failed: "bad", inactive: "dim" }[unit.state] || "warn";
  return card(unit.name, unit.state || none, mood, [
    ["sub-state", unit.sub_state || none], ["restarts", plain(unit.restarts), unit.restarts > 0], ["memory", bytes(unit.memory)],
  ]);
}
function storageCards(data) {
  const filesystems = data.filesystems.map((fs) => {
    const used = has(fs.size) && fs.size > 0 ? 1 - fs.avail / fs.size : undefined;
    const state = fs.error ? "not responding" : fs.readonly ? "read-only" : percent(used);
    const mood = fs.error || used > 0.95 ? "bad" : fs.readonly || used > 0.85 ? "warn" : "";
    return card(fs.mountpoint, state, mood, [["device", fs.device], ["free", bytes(fs.avail) + " of " + bytes(fs.size)]], used);
  });
  const arrays = data.arrays.map((array) => {
    // A container holds the disks of a firmware RAID; it is not an array itself.
    if (array.state === "container") return card(array.device, "container", "dim", []);
    const whole = array.active >= array.required;
    return card(array.device, array.state || "other", whole ? "good" : "bad",
      [["disks", plain(array.active) + " of " + plain(array.required), !whole]]);
  });
  const disks = data.disks.map((disk) => card(disk.device,
    disk.asleep ? "standby" : !has(disk.healthy) ? "unknown" : disk.healthy ? "healthy" : "failing",
    disk.healthy === 0 ? "bad" : disk.healthy ? "good" : "dim",
    [["wear", percent(disk.used)], ["temperature", plain(disk.temperature, "\u00a0\u00b0C")]]));
  return [...filesystems, ...arrays, ...disks];
}

function section(title, cards, note, classes) {
  if (!cards.length) return [];
  const heading = element("h2", "", title);
  if (note) heading.append(" ", element("span", "dim", note));
  return [heading, element("div", "cards " + (classes || ""), ...cards)];
}

function show() {
  const data = history[history.length - 1].data;
  const span = history.length < 2 ? "since start" : "last " + Math.round((history[history.length - 1].at - history[0].at) / 1000) + " s";
  const missing = data.not_measured.map((item) => card(item.what, "not measured", "warn", [["reason", item.why]]));
  byId("main").replaceChildren(
    ...section("Alerts", data.alerts.map(alertCard)),
    ...section("Models", data.models.sort(modelOrder).map(modelCard), span, "wide"),
    ...section("GPUs", data.gpus.map(gpuCard)),
    ...section("Host", [hostCard(data.host)]),
    ...section("Services", data.services.map(serviceCard)),
    ...section("Storage", storageCards(data)),
    ...section("Not measured", missing));
  if (!missing.length) byId("main").append(element("p", "dim", "Everything configured is being measured."));
  byId("host").textContent = data.host.name;
  document.title = data.host.name + " \u00b7 citadel-agent";
  byId("about").textContent = "citadel-agent " + data.version;
  byId("pages").replaceChildren(...data.pages.map((page) => {
    const link = element("a", "", page.path);
    link.href = page.path;
    return element("span", "", link, " ", element("span", "dim", page.title));
  }), element("span", "dim", "Health, readiness and status are on port " + data.health_port));
}

function take(data) {
  const at = Date.now();
  const last = history[history.length - 1];
  const sum = (models) => models.reduce((total, model) => total + (model.requests || 0), 0);
  // Counters decrease only when the agent has restarted.
  if (last && sum(data.models) < sum(last.data.models)) history.length = 0;
  history.push({ at, data });
  while (history.length > 2 && at - history[1].at > WINDOW) history.shift();
  show();
}

async function poll() {
  try {
    const answer = await fetch(location.pathname, { headers: { Accept: "application/json" }, cache: "no-store" });
    if (!answer.ok) throw new Error("status " + answer.status);
    // The host's time, which may differ from the browser's.
    const date = answer.headers.get("date");
    if (date) byId("time").textContent = new Date(date).toLocaleString();
    const data = await answer.json();
    await fetchRequests();
    take(data);
    byId("live").textContent = "live";
    byId("live").className = "good";
  } catch (error) {
    byId("live").textContent = "the agent is not responding; these values are out of date";
    byId("live").className = "bad";
  }
  setTimeout(poll, PERIOD);
}

// Without them, everything else is as true.
async function fetchRequests() {
  try {
    const answer = await fetch("/requests", { cache: "no-store" });
    if (!answer.ok) throw new Error("status " + answer.status);
    requests = new Map((await answer.json()).map((model) => [String(model.port), model]));
  } catch (error) {
    requests = new Map();
    console.warn(error);
  }
}

async function pollHour() {
  try {
    const answer = await fetch("/last-hour", { cache: "no-store" });
    if (!answer.ok) throw new Error("status " + answer.status);
    hour = await answer.json();
    for (const old of plots.values()) old.forEach((made) => made.end());
    plots.clear();
    for (const port of Object.keys(hour.models)) plots.set(port, plotsOf(port));
    show();
  } catch (error) {
    // The other poll reports that the agent is not responding; the plots stay as they are.
    console.warn(error);
  }
  setTimeout(pollHour, HOUR_PERIOD);
}

take(JSON.parse(byId("data").textContent));
fetchRequests().then(show);
setTimeout(poll, PERIOD);
pollHour();

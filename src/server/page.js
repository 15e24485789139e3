"use strict";

const PERIOD = 2000;
const TIMEOUT = 10000;
const SIGNS = { waiting: "… waiting", InProgress: "▶ in progress", Completed: "✓ completed", Failed: "✗ failed" };

const find = (id) => document.getElementById(id);

// Everything that comes from elsewhere becomes text, never markup.
function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${count.toFixed(unit === 0 || count >= 100 ? 0 : 1)} ${units[unit]}`;
}

function duration(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

function time(text) {
  return text.replace("T", " ").replace(/\.\d+Z$/, " UTC");
}

function totals(data) {
  const shown = [
    ["Working on", data.running],
    ["Waiting", data.queued],
    ["Completed", data.completed],
    ["Failed", data.failed],
    ["Volumes", bytes(data.bytes)],
    ["Transferred", bytes(data.transferred)],
    ["Retries", data.retries],
  ];
  find("totals").replaceChildren(...shown.map(([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", "", name), element("dd", "", String(value)));
    return pair;
  }));
}

const rows = new Map();

function key(task) {
  return [task.kind, task.started, task.source, task.target].join("\n");
}

function row() {
  const item = element("li");
  const top = element("div", "top");
  const parts = { item, name: element("span", "name"), state: element("span"), bar: element("div", "bar"), fill: element("i"), facts: element("div", "facts"), reason: element("p", "reason") };
  top.append(parts.name, parts.state);
  parts.bar.append(parts.fill);
  parts.bar.setAttribute("role", "progressbar");
  parts.bar.setAttribute("aria-valuemin", "0");
  parts.bar.setAttribute("aria-valuemax", "100");
  item.append(top, parts.bar, parts.facts, parts.reason);
  return parts;
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function show(parts, task) {
  const name = [task.kind, task.name, task.restoredId || task.imageId].filter(Boolean).join(" ");
  const state = task.queued && task.state === "InProgress" ? SIGNS.waiting : SIGNS[task.state] || task.state;
  const facts = [`${task.source} → ${task.target}`, `since ${time(task.started)}`];
  if (task.ended) facts.push(`until ${time(task.ended)}`);
  if (task.size) facts.push(bytes(task.size));
  if (task.rate && !task.ended) facts.push(`${bytes(task.rate)}/s`);
  if (task.secondsLeft !== null && !task.ended) facts.push(`${duration(task.secondsLeft)} left`);
  if (task.origin === "command") facts.push("by the command line");
  parts.item.className = task.state in SIGNS ? task.state : "";
  set(parts.name, name);
  set(parts.state, `${state}, ${task.percent} %`);
  parts.bar.setAttribute("aria-valuenow", String(task.percent));
  parts.bar.setAttribute("aria-label", `Progress of ${name}`);
  parts.fill.style.width = `${task.percent}%`;
  // Each on a line of its own where there is no room.
  facts.forEach((fact, place) => {
    if (!parts.facts.children[place]) parts.facts.append(element("span"));
    set(parts.facts.children[place], fact);
  });
  while (parts.facts.children.length > facts.length) parts.facts.lastChild.remove();
  set(parts.reason, task.reason || "");
  parts.reason.hidden = !task.reason;
}

function list(tasks) {
  const seen = new Set();
  let before = null;
  for (const task of tasks) {
    let id = key(task);
    while (seen.has(id)) id += "'";
    seen.add(id);
    if (!rows.has(id)) rows.set(id, row());
    const parts = rows.get(id);
    show(parts, task);
    const place = before ? before.nextSibling : find("tasks").firstChild;
    if (parts.item !== place) find("tasks").insertBefore(parts.item, place);
    before = parts.item;
  }
  for (const [id, parts] of rows) {
    if (!seen.has(id)) {
      parts.item.remove();
      rows.delete(id);
    }
  }
  find("empty").hidden = tasks.length > 0;
}

function status(text, lost) {
  set(find("status"), text);
  find("status").className = lost ? "lost" : "";
}

async function poll() {
  try {
    const answer = await fetch("/tasks.json", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const data = await answer.json();
    totals(data);
    list(data.tasks);
    status(`Version ${data.version}, live`, false);
  } catch (error) {
    status(`No connection to the server (${error.message}): what is shown is old`, true);
  }
  setTimeout(poll, PERIOD);
}

poll();

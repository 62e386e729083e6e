(function () {
'use strict';
const data = JSON.parse(document.getElementById('data').textContent);
const $ = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

// Text goes in as text, never as markup: names come from the traced program.
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === 'class') node.className = value; else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}
function svg(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
function size(bytes) {
  let value = Math.abs(bytes), unit = 0;
  while (value >= 1023.5 && unit < UNITS.length - 1) { value /= 1024; unit++; }
  const digits = unit === 0 ? 0 : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
  return (bytes < 0 ? '−' : '') + value.toFixed(digits) + ' ' + UNITS[unit];
}
const about = data.meta.sample_bytes > 1 ? '~' : '';
const bytesText = (n) => n === null || n === undefined ? '–' : about + size(n);
const signed = (n) => Math.abs(n) < 0.5 ? '0 B' : (n > 0 ? '+' : '') + size(n);
const rate = (n) => n === null || Math.abs(n) < 0.5 ? '0 B/s' : signed(n) + '/s';
const count = (n) => about + String(n).replace(/\B(?=(\d{3})+$)/g, ',');
const plural = (n, one, many) => count(n).replace('~', '') + ' ' + (n === 1 ? one : many);
function time(seconds) {
  if (seconds === null || !isFinite(seconds)) return '–';
  if (seconds < 60) return (seconds < 10 ? seconds.toFixed(1).replace(/\.0$/, '') : seconds.toFixed(0)) + ' s';
  const s = Math.round(seconds), d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  if (d) return d + ' d ' + h + ' h';
  if (h) return h + ' h ' + m + ' min';
  return s % 60 ? m + ' min ' + (s % 60) + ' s' : m + ' min';
}
const moment = (text) => /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(text) ? text.slice(0, 10) + ' ' + text.slice(11, 19) + ' UTC' : text;
const shortened = (text, most) => text.length > most ? text.slice(0, Math.max(1, most - 1)) + '…' : text;
const percent = (part, all) => all > 0 ? (100 * part / all).toFixed(part / all < 0.0995 ? 1 : 0) + '%' : '–';

const END = data.meta.duration_seconds;
const hasPast = data.stacks.some((s) => s.history.length > 1) || data.processes.some((p) => p.usage.length > 1);
const state = { from: 0, to: END, process: 0, off: new Set(), metric: '', inverted: false, zoom: [], search: '', filter: '', verdict: 'all',
  sort: 'rank', descending: false, open: new Set(), rows: 10 };

// What a stack held at a moment: the last figure known by then.
function heldAt(stack, at) {
  if (at >= END) return stack.bytes;
  let low = 0, high = stack.history.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (stack.history[middle][0] <= at) low = middle + 1; else high = middle;
  }
  return low ? stack.history[low - 1][1] : 0;
}
const grewIn = (stack) => heldAt(stack, state.to) - (state.from <= 0 ? 0 : heldAt(stack, state.from));
const isWhole = () => state.from <= 0 && state.to >= END;

// ---- head
function head() {
  document.documentElement.lang = 'en';
  const meta = data.meta;
  $('target').textContent = meta.target + ' on ' + meta.host + ', ' + moment(meta.taken_at) + (meta.gained_since ? ', gained in ' : ', after ') + time(meta.duration_seconds);
  const growing = data.stacks.filter((s) => s.verdict === 'growing');
  const worst = growing.slice().sort((a, b) => b.growth - a.growth)[0];
  const soonest = data.processes.filter((p) => p.seconds_to_limit !== null).sort((a, b) => a.seconds_to_limit - b.seconds_to_limit)[0];
  const headline = $('headline');
  const every = data.cycles ? data.cycles.growing : [];
  const undecided = data.stacks.filter((s) => s.verdict === 'too-early' && s.growth > 0).length;
  if (worst) {
    const frame = data.frames[worst.frames[worst.culprit]];
    headline.className = 'bad';
    headline.textContent = plural(growing.length, 'stack grows', 'stacks grow') + ': ' + (frame ? frame.name : 'an unknown function') +
      (frame && frame.place ? ' (' + frame.place.replace(/^.*\//, '') + ')' : '') + ' ' + rate(worst.growth) + (growing.length > 1 ? ' and others' : '') +
      (soonest ? '; the ' + (soonest.limit === null ? "machine's memory is full in " : 'memory limit is met in ') + time(soonest.seconds_to_limit) : '');
  } else if (data.processes.some((p) => p.verdict === 'growing')) {
    headline.className = 'bad';
    headline.textContent = 'A process grows, but no single stack does';
  } else if (every.length) {
    headline.className = 'bad';
    headline.textContent = every[0].name + (every.length > 1 ? ' and others grow' : ' grows') + ' in each of ' + plural(data.cycles.list.filter((c) => c.to !== null).length, 'cycle', 'cycles');
  } else if (data.stacks.length && data.stacks.every((s) => s.verdict === 'too-early')) {
    headline.textContent = (Object.keys(meta.losses).length ? 'No verdict: too early, or losses forbid it, after ' : 'Too early to judge, after ') + plural(meta.intervals_completed, 'interval', 'intervals') + ' of ' + time(meta.interval_seconds);
  } else if (undecided) {
    headline.textContent = 'Undecided: ' + plural(undecided, 'stack', 'stacks') + ' gained, but ' +
      (Object.keys(meta.losses).length ? 'what was lost could explain that' : 'not long or steadily enough for a verdict');
  } else {
    headline.textContent = 'Nothing grows';
  }
  const facts = $('facts');
  const fact = (name, value) => facts.append(el('div', {}, el('dt', {}, name), el('dd', {}, value)));
  const total = data.stacks.reduce((sum, s) => sum + (s.apart ? 0 : s.bytes), data.not_shown.bytes);
  fact(meta.gained_since ? 'gained in this time' : 'outstanding since the attach', bytesText(total));
  if (data.processes.length === 1) {
    const p = data.processes[0];
    fact('process', p.name + ', ' + p.state);
    if (p.container) fact('container', p.container);
    fact(meta.gained_since ? 'resident, at its beginning → at its end' : 'resident, at attach → now', bytesText(p.rss_at_attach).replace('~', '') + ' → ' + bytesText(p.rss).replace('~', ''));
    if (p.limit !== null) fact("of the memory limit", (p.usage_bytes === null ? "–" : size(p.usage_bytes)) + ' of ' + size(p.limit));
  } else {
    fact('processes', String(data.processes.length));
  }
  fact('figures', meta.sample_bytes > 1 ? 'estimates, one sample per ' + size(meta.sample_bytes) : 'exact');
  if (meta.older_seconds !== null) fact('only blocks older than', time(meta.older_seconds));
  const losses = Object.entries(meta.losses);
  if (losses.length) {
    $('losses').hidden = false;
    $('losses').textContent = 'Lost: ' + losses.map(([name, n]) => name + ' ' + count(n).replace('~', '')).join(', ') + '. Figures may be off by that much.';
  }
  $('footer').textContent = 'memtrace ' + meta.version + ', tracing began ' + moment(meta.started_at) + '. This page is one file and loads nothing.';
}

// ---- memory over time
const LINES = [['outstanding', 'outstanding since the attach', 1], ['rss', 'resident', 2], ['usage', 'usage in the limit', 3], ['limit', 'limit', 4]];
let chart = null;
function legend() {
  const box = $('legend');
  box.replaceChildren();
  const points = data.processes[state.process].usage;
  for (const [key, name, at] of LINES) {
    if (!points.some((p) => p[at] !== null)) continue;
    const button = el('button', { type: 'button', 'aria-pressed': String(!state.off.has(key)) }, el('i', {}), name);
    button.style.setProperty('--c', 'var(--c-' + key + ')');
    button.onclick = () => { if (!state.off.delete(key)) state.off.add(key); legend(); drawChart(); };
    box.append(button);
  }
}
function ticks(top, unit) {
  const rough = top / 4, base = unit === 'size' ? Math.pow(1024, Math.floor(Math.log(Math.max(rough, 1)) / Math.log(1024))) : 1;
  const steps = unit === 'size' ? [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024] : [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 604800];
  const step = (steps.find((s) => s * base >= rough) || steps[steps.length - 1]) * base;
  const out = [];
  for (let at = 0; at <= top * 1.0001 && out.length < 50; at += step) out.push(at);
  return out;
}
function drawChart() {
  const box = $('chart'), width = Math.max(280, box.clientWidth), height = Math.max(180, Math.min(300, width * 0.45));
  const left = 62, right = 12, top = 16, bottom = 22;
  const points = data.processes[state.process].usage;
  const shown = LINES.filter(([key]) => !state.off.has(key));
  let high = 1;
  for (const p of points) for (const [, , at] of shown) if (p[at] !== null) high = Math.max(high, p[at]);
  if (!state.off.has('limit')) for (const t of data.thresholds) high = Math.max(high, t.bytes);
  high *= 1.06;
  const x = (at) => left + (width - left - right) * (END > 0 ? at / END : 0), y = (v) => height - bottom - (height - top - bottom) * v / high;
  const root = svg('svg', { viewBox: '0 0 ' + width + ' ' + height, height: height, role: 'img', 'aria-label': 'Memory over time' });
  for (const v of ticks(high, 'size')) {
    root.append(svg('line', { class: 'grid', x1: left, x2: width - right, y1: y(v), y2: y(v) }), svg('text', { x: left - 6, y: y(v) + 4, 'text-anchor': 'end' }, size(v)));
  }
  for (const at of ticks(END, 'time')) root.append(svg('text', { x: x(at), y: height - 6, 'text-anchor': at === 0 ? 'start' : x(at) > width - 30 ? 'end' : 'middle' }, time(at)));
  if (!isWhole()) root.append(svg('rect', { class: 'select', x: x(state.from), width: Math.max(1, x(state.to) - x(state.from)), y: top, height: height - top - bottom }));
  // A label that would lie on another one is left out: the list below the chart has all.
  let taken = [];
  for (const t of data.thresholds) if (t.bytes <= high) {
    root.append(svg('line', { class: 'threshold', x1: left, x2: width - right, y1: y(t.bytes), y2: y(t.bytes) }));
    if (taken.some((at) => Math.abs(at - y(t.bytes)) < 12)) continue;
    taken.push(y(t.bytes));
    root.append(svg('text', { class: 'threshold', x: width - right, y: y(t.bytes) - 4, 'text-anchor': 'end' }, shortened(t.name, Math.floor((width - left) / 7))));
  }
  for (const [key, , at] of shown) {
    let path = '';
    for (const p of points) path += p[at] === null ? '' : (path ? 'L' : 'M') + x(p[0]).toFixed(1) + ' ' + y(p[at]).toFixed(1);
    if (!path) continue;
    const line = svg('path', { class: 'series ' + key, d: path });
    line.style.setProperty('--c', 'var(--c-' + key + ')');
    root.append(line);
  }
  const upright = (event, kind) => {
    const at = x(event.at), text = shortened(event.name || event.kind, 24), wide = text.length * 6.5 + 6, late = at + wide > width;
    root.append(svg('line', { class: kind, x1: at, x2: at, y1: top, y2: height - bottom }));
    const from = late ? at - wide : at;
    if (taken.some(([a, b]) => from < b && from + wide > a)) return;
    taken.push([from, from + wide]);
    root.append(svg('text', { class: kind, x: at + (late ? -4 : 4), y: kind === 'incident' ? height - bottom - 6 : top + 9, 'text-anchor': late ? 'end' : 'start' }, text));
  };
  taken = [];
  data.marks.forEach((m) => upright(m, 'mark'));
  taken = [];
  data.incidents.slice().reverse().forEach((i) => upright(i, 'incident'));
  box.replaceChildren(root);
  chart = { root: root, left: left, width: width - left - right, full: width };
  root.addEventListener('pointerdown', drag);
}
function drag(event) {
  const at = (e) => {
    const box = chart.root.getBoundingClientRect();
    const px = (e.clientX - box.left) * chart.full / box.width;
    return Math.min(1, Math.max(0, (px - chart.left) / chart.width)) * END;
  };
  const start = at(event);
  const move = (e) => {
    const now = at(e);
    if (Math.abs(now - start) > END / 100) setRange(Math.min(start, now), Math.max(start, now));
  };
  const stop = () => { removeEventListener('pointermove', move); removeEventListener('pointerup', stop); removeEventListener('pointercancel', stop); };
  addEventListener('pointermove', move);
  addEventListener('pointerup', stop);
  addEventListener('pointercancel', stop);
}
let due = 0;
function setRange(from, to) {
  state.from = Math.max(0, Math.min(from, END));
  state.to = Math.min(END, Math.max(to, state.from));
  $('from').value = String(END > 0 ? Math.round(1000 * state.from / END) : 0);
  $('to').value = String(END > 0 ? Math.round(1000 * state.to / END) : 1000);
  $('from-text').textContent = time(state.from);
  $('to-text').textContent = time(state.to);
  if (!due) due = requestAnimationFrame(() => { due = 0; drawChart(); metrics(); drawFlame(); drawStacks(); });
}
function overTime() {
  if (!hasPast || !data.processes.length) return;
  $('over-time').hidden = false;
  const most = data.processes.map((p, i) => [p.bytes, i]).sort((a, b) => b[0] - a[0] || a[1] - b[1])[0][1];
  state.process = most;
  if (data.processes.length > 1) {
    const select = $('process');
    select.hidden = false;
    data.processes.forEach((p, i) => select.append(el('option', { value: i }, p.name)));
    select.value = String(most);
    select.onchange = () => { state.process = Number(select.value); legend(); drawChart(); };
  }
  // A limit far above everything would press all other lines to the floor.
  const p = data.processes[most], high = Math.max(1, ...p.usage.map((u) => Math.max(u[1], u[2] || 0, u[3] || 0)));
  if (p.limit !== null && p.limit > 20 * high) state.off.add('limit');
  $('from').oninput = () => setRange(Math.min(END * $('from').value / 1000, state.to), state.to);
  $('to').oninput = () => setRange(state.from, Math.max(END * $('to').value / 1000, state.from));
  $('whole').onclick = () => setRange(0, END);
  const events = data.marks.map((m) => ['mark', m.at, m.name]).concat(data.incidents.map((i) => ['incident', i.at, i.kind + ': ' + i.text]));
  for (const [kind, at, text] of events.sort((a, b) => a[1] - b[1])) $('events').append(el('li', { class: kind }, time(at) + '  ' + text));
  legend();
  setRange(0, END);
}

// ---- cycles
function cycles() {
  const told = data.cycles;
  if (!told) return;
  $('cycles').hidden = false;
  const over = told.list.filter((c) => c.to !== null).length;
  const range = (a, show) => show(a.minimum_bytes) + ' to ' + show(a.maximum_bytes) + ', average ' + show(a.average_bytes) + ', ' + signed(a.growth_bytes) + ' from first to last';
  const sum = told.total ? plural(told.completed, 'cycle ', 'cycles ') + told.marks + '.' : 'No cycle is over yet, ' + told.marks + '.';
  const lines = [sum];
  if (told.total) {
    lines.push('Outstanding: ' + range(told.total.outstanding, bytesText) + '.');
    if (told.total.rss) lines.push('Resident: ' + range(told.total.rss, size) + '.');
    if (told.total.usage) lines.push('Usage' + (told.total.limit_bytes === null ? '' : ' of ' + size(told.total.limit_bytes)) + ': ' + range(told.total.usage, size) + '.');
    if (told.thresholds.length) lines.push('Cycles that reached ' + told.thresholds.map((t) => t.percent + '% of the limit: ' + t.cycles).join(', ') + '.');
  }
  $('cycles-sum').replaceChildren(...lines.flatMap((line, i) => i ? [el('br'), line] : [line]));
  for (const g of told.growing) {
    const most = Math.max(1, ...g.per_cycle.map(Math.abs));
    const bars = svg('svg', { class: 'bars', viewBox: '0 0 ' + Math.max(1, g.per_cycle.length) * 8 + ' 20', role: 'img', 'aria-label': g.per_cycle.map(signed).join(', ') });
    bars.style.width = Math.min(240, g.per_cycle.length * 8) + 'px';
    g.per_cycle.forEach((n, i) => bars.append(svg('rect', { x: i * 8, width: 6, y: 20 - 20 * Math.max(0, n) / most, height: 20 * Math.max(0, n) / most })));
    $('every').append(el('li', {}, el('strong', {}, g.name), ' grows in each of ' + plural(over, 'cycle', 'cycles') + ', ' + told.at_least + about + signed(g.gained) + ' in all ', bars));
  }
  if (!told.growing.length) $('every').append(el('li', { class: 'hint' }, told.completed < told.needed ? 'What grows in every cycle is told from ' + told.needed + ' on.' : 'Nothing grew in every cycle.'));
  const has = (key) => told.list.some((c) => c.amounts[key]);
  const columns = [['#', (c) => String(c.number)], ['time', (c) => time(c.amounts.seconds) + (c.to === null ? ' so far' : '')], ['grew', (c) => about + signed(c.amounts.outstanding.growth_bytes)]];
  if (told.name === null) columns.splice(1, 0, ['from', (c) => c.from]);
  const add = (key, name, show) => {
    if (!has(key)) return;
    for (const [word, field] of [['min', 'minimum_bytes'], ['avg', 'average_bytes'], ['max', 'maximum_bytes']]) columns.push([word === 'min' ? name + ' min' : word, (c) => c.amounts[key] ? show(c.amounts[key][field]) : '–']);
  };
  add('outstanding', 'outstanding', bytesText);
  add('rss', 'resident', size);
  add('usage', 'usage', size);
  const numeric = (i) => columns[i][0] === 'from' ? {} : { class: 'n' };
  $('cycle-list').tHead.replaceChildren(el('tr', {}, ...columns.map(([name], i) => el('th', Object.assign({ scope: 'col' }, numeric(i)), name))));
  const rows = told.list.map((c) => {
    const row = el('tr', {}, ...columns.map(([, value], i) => el('td', numeric(i), value(c))));
    const show = () => setRange(c.at, c.at + c.amounts.seconds);
    if (hasPast) {
      row.tabIndex = 0;
      row.onclick = show;
      row.onkeydown = (e) => { if (e.key === 'Enter') show(); };
    }
    return row;
  });
  if (told.earlier) rows.unshift(el('tr', {}, el('td', { colspan: String(columns.length) }, plural(told.earlier, 'earlier cycle', 'earlier cycles'))));
  $('cycle-list').tBodies[0].replaceChildren(...rows);
  $('cycle-hint').hidden = !hasPast;
}

// ---- flame graph
// What other stacks hold too, or is no memory in use, is in no sum.
const summed = (s, n) => s.apart ? 0 : n;
const isThere = (key) => key === 'grew' ? hasPast : key !== 'resident' && key !== 'reserved' || data.stacks.some((s) => s.apart === key);
const METRICS = {
  held: ['bytes held at the end', (s) => summed(s, heldAt(s, state.to)), bytesText, true],
  grew: ['bytes gained in the time', (s) => summed(s, Math.max(0, grewIn(s))), bytesText, true],
  objects: ['objects held now', (s) => summed(s, s.objects), (n) => plural(n, 'object', 'objects'), false],
  allocated: ['bytes allocated since the attach', (s) => summed(s, s.allocated_bytes), bytesText, false],
  allocations: ['objects allocated since the attach', (s) => summed(s, s.allocated_objects), (n) => plural(n, 'object', 'objects'), false],
  resident: ['bytes resident (page faults; the same memory again)', (s) => s.apart === 'resident' ? heldAt(s, state.to) : 0, bytesText, true],
  reserved: ['bytes reserved (no memory in use)', (s) => s.apart === 'reserved' ? heldAt(s, state.to) : 0, bytesText, true],
};
function metrics() {
  const select = $('metric');
  const wanted = Object.keys(METRICS).filter(isThere);
  if (!wanted.includes(state.metric)) state.metric = 'held';
  if (select.children.length !== wanted.length) {
    select.replaceChildren(...wanted.map((key) => el('option', { value: key }, METRICS[key][0])));
    select.onchange = () => { state.metric = select.value; state.zoom = []; drawFlame(); };
  }
  select.value = state.metric;
}
function hash(text) {
  let h = 2166136261;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 16777619);
  return h >>> 0;
}
// A module has a hue, the first ones hues far apart; its functions differ in brightness.
const HUES = [28, 205, 145, 265, 52, 335, 180, 230, 95, 8];
const hues = new Map();
function color(node) {
  const key = node.module || node.name;
  if (!hues.has(key)) hues.set(key, hues.size < HUES.length ? HUES[hues.size] : hash(key) % 360);
  return '--h:' + hues.get(key) + ';--d:' + (hash(node.name) % 9 - 4) + '%';
}
function tree() {
  const root = { name: 'all', module: '', value: 0, depth: 0, children: new Map() };
  const value = METRICS[state.metric][1];
  const names = new Map(data.processes.map((p) => [p.pid, p.name]));
  const add = (node, name, module, n, place) => {
    let child = node.children.get(name);
    if (!child) node.children.set(name, child = { name: name, module: module, place: place, value: 0, depth: node.depth + 1, children: new Map(), parent: node });
    child.value += n;
    return child;
  };
  for (const s of data.stacks) {
    const n = value(s);
    if (!(n > 0)) continue;
    root.value += n;
    const process = names.get(s.pid) || 'pid ' + s.pid;
    let node = root, frames = s.frames.map((i) => data.frames[i]);
    if (!state.inverted) {
      if (data.processes.length > 1) node = add(node, process, '', n, '');
      if (!s.complete) node = add(node, '[outer frames unknown]', '', n, '');
      frames = frames.slice().reverse();
    } else {
      frames = frames.slice(s.culprit);
    }
    for (const f of frames) node = add(node, f.name, f.module || '', n, f.place || '');
  }
  const rest = state.metric === 'objects' ? data.not_shown.objects : state.metric === 'held' && state.to >= END ? data.not_shown.bytes : 0;
  if (rest > 0) {
    root.value += rest;
    add(root, '[' + plural(data.not_shown.stacks, 'stack', 'stacks') + ' not shown]', '', rest, '');
  }
  return root;
}
function find(root) {
  let node = root;
  const kept = [];
  for (const name of state.zoom) {
    const next = node.children.get(name);
    if (!next) break;
    node = next;
    kept.push(name);
  }
  state.zoom = kept;
  return node;
}
const matches = (node, needle) => node.depth > 0 && (node.name + ' ' + node.module).toLowerCase().includes(needle);
function matchedValue(node, needle) {
  if (matches(node, needle)) return node.value;
  let sum = 0;
  for (const child of node.children.values()) sum += matchedValue(child, needle);
  return sum;
}
function describe(node, root) {
  const show = METRICS[state.metric][2];
  return node.name + (node.place ? '  ' + node.place : '') + (node.module && !node.place ? '  ' + node.module : '') + '  –  ' + show(node.value) + ', ' + percent(node.value, root.value);
}
function drawFlame() {
  const box = $('flame'), root = tree(), focus = find(root), needle = state.search.trim().toLowerCase();
  const row = matchMedia('(max-width: 720px)').matches ? 27 : 21, width = box.clientWidth || 1000;
  const frames = [];
  let deepest = 0;
  const put = (node, left, share, above) => {
    deepest = Math.max(deepest, node.depth);
    const pixels = share * width;
    const frame = el('div', { class: 'f' + (node.depth === 0 ? ' root' : above ? ' above' : '') + (pixels < 24 ? ' narrow' : '') + (needle && matches(node, needle) ? ' hit' : ''),
      role: 'treeitem', tabindex: '0', 'aria-level': String(node.depth + 1), title: describe(node, root) }, pixels < 24 ? '' : node.depth === 0 ? 'all, ' + METRICS[state.metric][2](node.value) : node.name);
    frame.style.cssText = 'left:' + (100 * left) + '%;width:' + (100 * share) + '%;top:' + node.depth * row + 'px;' + color(node);
    const zoom = () => {
      const path = [];
      for (let n = node; n.parent; n = n.parent) path.unshift(n.name);
      state.zoom = path;
      drawFlame();
      $('detail').textContent = describe(node, root);
    };
    frame.onclick = zoom;
    frame.onkeydown = (e) => { if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); zoom(); } };
    frame.onpointerenter = frame.onfocus = () => { $('detail').textContent = describe(node, root); };
    frames.push(frame);
  };
  const up = [];
  for (let node = focus.parent; node; node = node.parent) up.unshift(node);
  up.forEach((node) => put(node, 0, 1, true));
  (function place(node, left, share) {
    put(node, left, share, false);
    let at = left;
    const children = Array.from(node.children.values()).sort((a, b) => b.value - a.value || (a.name < b.name ? -1 : 1));
    for (const child of children) {
      const part = share * child.value / node.value;
      if (part * width >= 0.7 && frames.length < 6000) place(child, at, part);
      at += part;
    }
  })(focus, 0, 1);
  if (root.value > 0) {
    box.replaceChildren(...frames);
    box.style.height = (deepest + 1) * row + 'px';
  } else {
    box.replaceChildren(el('p', { class: 'none' }, state.metric === 'grew' ? 'Nothing gained memory in this time.' : 'Nothing is outstanding.'));
    box.style.height = '';
  }
  box.classList.toggle('searching', needle !== '');
  $('reset').hidden = state.zoom.length === 0;
  $('matched').textContent = needle ? 'matches ' + percent(matchedValue(root, needle), root.value) : '';
}
function flame() {
  metrics();
  $('search').oninput = () => { state.search = $('search').value; drawFlame(); };
  $('reset').onclick = () => { state.zoom = []; drawFlame(); };
  $('inverted').onchange = () => { state.inverted = $('inverted').checked; state.zoom = []; drawFlame(); };
}

// ---- stacks
const COLUMNS = [
  ['rank', '#', (s) => s.rank, false], ['name', 'function', (s) => culprit(s).name, false], ['verdict', 'verdict', (s) => s.verdict, false],
  ['held', 'holds', (s) => heldAt(s, state.to), true], ['objects', 'objects', (s) => s.objects, true], ['growth', 'growth', (s) => s.growth, true],
  ['grew', 'in the time', grewIn, true], ['oldest', 'oldest', (s) => s.oldest || 0, true], ['spark', 'over time', null, false],
];
const UNKNOWN = { name: '[unknown]', place: '', module: '' };
const culprit = (s) => data.frames[s.frames[s.culprit]] || UNKNOWN;
function spark(s) {
  const w = 110, h = 26, high = Math.max(1, ...s.history.map((p) => p[1]));
  const x = (at) => (END > 0 ? at / END : 0) * (w - 2) + 1, y = (v) => h - 2 - (h - 4) * v / high;
  const root = svg('svg', { class: 'spark ' + s.verdict, viewBox: '0 0 ' + w + ' ' + h, role: 'img', 'aria-label': 'held over time, at most ' + size(high) });
  if (!isWhole()) root.append(svg('rect', { x: x(state.from), width: Math.max(1, x(state.to) - x(state.from)), y: 0, height: h }));
  root.append(svg('path', { d: s.history.map((p, i) => (i ? 'L' : 'M') + x(p[0]).toFixed(1) + ' ' + y(p[1]).toFixed(1)).join('') }));
  return root;
}
function frameList(s) {
  const list = el('ol', { class: 'frames' });
  s.frames.forEach((i) => {
    const f = data.frames[i];
    const place = f.place || f.module;
    list.append(el('li', f.allocator ? { class: 'dim' } : {}, f.name, el('small', {}, (place && place !== f.name ? '  ' + place : '') + (f.inlined ? '  (inlined)' : '') + (f.reason ? '  (' + f.reason + ')' : ''))));
  });
  if (!s.complete) list.append(el('li', { class: 'dim' }, '[outer frames unknown]'));
  if (!s.per_cycle.some((n) => n !== 0)) return list;
  return el('div', {}, list, el('p', { class: 'hint' }, 'gained per cycle: ' + s.per_cycle.map(signed).join(', ')));
}
function header() {
  const row = el('tr');
  for (const [key, name, value, numeric] of COLUMNS) {
    if ((key === 'spark' || key === 'grew') && !hasPast) continue;
    const cell = el('th', numeric ? { class: 'n', scope: 'col' } : { scope: 'col' });
    if (value) {
      const button = el('button', { type: 'button' }, name);
      button.onclick = () => {
        if (state.sort === key) state.descending = !state.descending; else { state.sort = key; state.descending = numeric; }
        header();
        drawStacks();
      };
      cell.append(button);
      if (state.sort === key) cell.setAttribute('aria-sort', state.descending ? 'descending' : 'ascending');
    } else cell.append(name);
    row.append(cell);
  }
  $('stacks').tHead.replaceChildren(row);
}
function drawStacks() {
  const needle = state.filter.trim().toLowerCase(), value = COLUMNS.find((c) => c[0] === state.sort)[2];
  const wanted = (s) => (state.verdict === 'all' || s.verdict === state.verdict) &&
    (!needle || s.frames.some((i) => (data.frames[i].name + ' ' + (data.frames[i].place || '') + ' ' + (data.frames[i].module || '')).toLowerCase().includes(needle)));
  const sorted = data.stacks.filter(wanted).sort((a, b) => {
    const x = value(a), y = value(b), order = x < y ? -1 : x > y ? 1 : 0;
    return (state.descending ? -order : order) || a.rank - b.rank;
  });
  const body = $('stacks').tBodies[0];
  const rows = [];
  for (const s of sorted.slice(0, state.rows)) {
    const f = culprit(s), open = state.open.has(s.rank);
    const button = el('button', { type: 'button', 'aria-expanded': String(open) }, f.name);
    button.onclick = () => { if (!state.open.delete(s.rank)) state.open.add(s.rank); drawStacks(); };
    const process = data.processes.length > 1 ? ' · ' + ((data.processes.find((p) => p.pid === s.pid) || {}).name || 'pid ' + s.pid) : '';
    const cell = (label, text, more) => el('td', { class: 'n' + (text === '' ? ' empty' : ''), 'data-label': label }, text, ...(more || []));
    const row = el('tr', {}, el('td', { class: 'rank' }, String(s.rank)),
      el('td', { class: 'name' }, button, el('small', {}, (f.place || f.module || '') + process + (s.probe === 'heap' ? '' : ' · ' + (s.kind || s.probe)))),
      el('td', {}, el('span', { class: 'badge ' + s.verdict, title: 'confidence ' + Math.floor(s.confidence * 100) + '%' }, s.verdict === 'too-early' ? 'too early' : s.verdict)),
      cell('holds', bytesText(heldAt(s, state.to))), cell('objects', count(s.objects)), cell('growth', rate(s.growth)));
    if (hasPast) row.append(cell('in the time', signed(grewIn(s))));
    row.append(cell('oldest', s.oldest === null ? '' : time(s.oldest)));
    if (hasPast) row.append(el('td', {}, s.history.length > 1 ? spark(s) : ''));
    rows.push(row);
    if (open) rows.push(el('tr', { class: 'frames' }, el('td', { colspan: String(row.children.length) }, frameList(s))));
  }
  if (!rows.length) rows.push(el('tr', {}, el('td', { colspan: '9' }, data.stacks.length ? 'No stack matches.' : 'Nothing is outstanding.')));
  body.replaceChildren(...rows);
  const more = $('more');
  more.replaceChildren();
  if (sorted.length > state.rows) {
    const button = el('button', { type: 'button' }, 'show all ' + sorted.length);
    button.onclick = () => { state.rows = Infinity; drawStacks(); };
    more.append(button);
  }
  if (data.not_shown.stacks) more.append(' ' + plural(data.not_shown.stacks, 'stack is', 'stacks are') + ' not in this file and hold' + (data.not_shown.stacks === 1 ? 's ' : ' ') + bytesText(data.not_shown.bytes) + '.');
}
function stacks() {
  const verdicts = Array.from(new Set(data.stacks.map((s) => s.verdict)));
  $('verdict').append(el('option', { value: 'all' }, 'all verdicts'), ...verdicts.map((v) => el('option', { value: v }, v === 'too-early' ? 'too early' : v)));
  $('verdict').onchange = () => { state.verdict = $('verdict').value; drawStacks(); };
  $('filter').oninput = () => { state.filter = $('filter').value; drawStacks(); };
  header();
}

$('theme').onclick = () => {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  document.documentElement.dataset.theme = dark ? 'light' : 'dark';
};
document.querySelector('main').hidden = false;
head();
flame();
stacks();
overTime();
cycles();
drawFlame();
drawStacks();
let width = innerWidth;
addEventListener('resize', () => {
  if (innerWidth === width) return;
  width = innerWidth;
  if (!$('over-time').hidden) drawChart();
  drawFlame();
});
})();

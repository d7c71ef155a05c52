"""The page of `inline.Player`: a select of tasks and one of examples, steps forwards and backwards, the world as a table."""

from __future__ import annotations

PLAYER_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>programs step by step</title><style>
body{font:14px system-ui,sans-serif;margin:4px;background:#fff;color:#202020}
@media (prefers-color-scheme:dark){body{background:#1b1b1b;color:#eee}td{border-color:#666}}
table{border-collapse:collapse;margin:6px 18px 6px 0}td{width:24px;height:24px;border:1px solid #bbb;text-align:center;padding:0}
.wall{background:#4a4a4a;color:#fff}.robot{font-weight:bold;outline:2px solid #2166ac}.row{display:flex;flex-wrap:wrap}
b.now{outline:2px solid #d55e00}code{line-height:1.7}button,select,input{font:inherit;margin-right:6px}
</style><div><label>task <select id="task"></select></label><label>example <select id="example"></select></label>
<button id="back">step back</button><button id="play">play</button><button id="next">step</button>
<input id="at" type="range" min="0" value="0" aria-label="step"></div><p id="says" role="status"></p>
<p><code id="program"></code></p><div class="row"><table id="now"></table><table id="expected"></table></div><script>
const tasks = TASKS_JSON, by = id => document.getElementById(id), glyphs = "\\u25b2\\u25b6\\u25bc\\u25c0";
let timer = null;
function option(select, text, value) { const o = document.createElement("option"); o.textContent = text; o.value = value; select.append(o); }
tasks.forEach((t, i) => option(by("task"), `${t.task}: ${t.kind}`, i));
function current() { const t = tasks[by("task").value]; return [t, t.examples[by("example").value]]; }
function draw(table, caption, world) {
  const [height, width, cells, robot] = world; table.textContent = "";
  table.createCaption().textContent = caption;
  for (let r = 1; r < height - 1; r++) { const line = table.insertRow();
    for (let c = 1; c < width - 1; c++) { const cell = line.insertCell(), n = cells[r * width + c], here = robot[0] == r && robot[1] == c;
      cell.textContent = (here ? glyphs[robot[2]] : "") + (n < 0 ? "#" : n > 0 ? n : "");
      cell.className = n < 0 ? "wall" : here ? "robot" : ""; } } }
function show() { const [t, e] = current(), at = +by("at").value;
  if (!e) { by("program").textContent = t.text; by("says").textContent = "no program: " + t.problem; by("now").textContent = by("expected").textContent = ""; return; }
  const world = [e.input[0], e.input[1], e.input[2].slice(), e.input[3]];
  for (const [, robot, changed] of e.steps.slice(0, at)) { world[3] = robot; for (const [i, n] of changed) world[2][i] = n; }
  const token = at ? e.steps[at - 1][0] : -1; by("program").textContent = "";
  t.tokens.forEach((text, i) => { const b = document.createElement(i == token ? "b" : "span"); b.textContent = text; if (i == token) b.className = "now"; by("program").append(b, " "); });
  draw(by("now"), at ? `after step ${at}` : "input", world); draw(by("expected"), "expected", e.expected);
  by("says").textContent = `step ${at} of ${e.steps.length}; ${e.shown ? "shown" : "held-out"} example, ${e.right ? "right" : "wrong"} (${e.status}); reference: ${t.reference.join(" ")}`; }
function reset() { const [, e] = current(); by("at").max = e ? e.steps.length : 0; by("at").value = 0; show(); }
function choose() { const [t] = current(); by("example").textContent = ""; t.examples.forEach((_, i) => option(by("example"), i + 1, i)); reset(); }
function move(by_steps) { by("at").value = +by("at").value + by_steps; show(); }
function stop() { clearInterval(timer); timer = null; by("play").textContent = "play"; }
by("task").onchange = () => { stop(); choose(); }; by("example").onchange = () => { stop(); reset(); };
by("at").oninput = show; by("back").onclick = () => move(-1); by("next").onclick = () => move(1);
by("play").onclick = () => { if (timer) return stop(); by("play").textContent = "pause";
  if (by("at").value == by("at").max) by("at").value = 0;
  timer = setInterval(() => { move(1); if (by("at").value == by("at").max) stop(); }, 400); };
if (tasks.length) choose();
</script></html>"""
"""`TASKS_JSON` stands for the data."""

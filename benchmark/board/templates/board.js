"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const ARROWS = ["↑", "→", "↓", "←"];
  const CELL = 30;
  const PAUSE = 700;
  const ICONS = {
    "First step": "M2 2h2v12H2zM14 2v12L5 8z",
    "Previous step": "M12 3.5v9L5 8z",
    "Play": "M4 2l10 6L4 14z",
    "Pause": "M3 2h4v12H3zM9 2h4v12H9z",
    "Next step": "M4 3.5l7 4.5-7 4.500z",
    "Last step": "M12 2h2v12h-2zM2 2l9 6L2 14z",
  };

  /* Elements are made, never parsed: what a submitter wrote is only ever text. */
  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const shape = (name, attributes = {}, ...children) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };

  /* Theme: as the system, light, dark. */
  const themes = ["system", "light", "dark"];
  const button = document.getElementById("theme");
  const setTheme = (theme) => {
    if (theme === "system") root.removeAttribute("data-theme");
    else root.dataset.theme = theme;
    button.lastElementChild.textContent = theme;
    button.setAttribute("aria-label", `Colour theme: ${theme === "system" ? "as the system" : theme}`);
  };
  const remembered = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null;
    }
  };
  let theme = themes.includes(remembered()) ? remembered() : "system";
  setTheme(theme);
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    setTheme(theme);
    try {
      localStorage.setItem("theme", theme);
    } catch {
      /* The choice then lasts as long as the page. */
    }
  });

  /* Sorting and filtering. */
  const field = (name) => document.getElementById(`f-${name}`);
  const bodies = [...document.querySelectorAll("table.board tbody")];
  const FALLING = new Set(["shown", "held_out", "exact", "valid", "skill", "gap", "delta", "parameters"]);
  const cellOf = (row, key) => row.querySelector(`[data-key="${key}"]`) || row.querySelector(`[data-name="${key}"]`);
  const sortBy = (key, falling) => {
    const sign = falling ? -1 : 1;
    for (const body of bodies) {
      const valued = [...body.rows].map((row) => [row, cellOf(row, key).dataset.order]);
      const number = valued.every(([, value]) => value === "" || !Number.isNaN(Number(value)));
      valued.sort(([, a], [, b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (number ? Number(a) - Number(b) : a.localeCompare(b));
      });
      body.append(...valued.map(([row]) => row));
      for (const head of body.parentElement.tHead.querySelectorAll("th")) {
        if (head.dataset.key === key) head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      }
    }
  };
  const filter = () => {
    const [suite, family, status] = ["suite", "family", "status"].map((name) => field(name).value);
    let count = 0;
    for (const group of document.querySelectorAll(".group")) {
      group.hidden = suite !== "" && group.dataset.suite !== suite;
      let here = 0;
      for (const row of group.querySelectorAll("table.board tbody tr")) {
        row.hidden = (family !== "" && row.dataset.family !== family) || (status !== "" && row.dataset.status !== status);
        here += !row.hidden;
      }
      group.querySelector(".empty").hidden = here > 0;
      count += group.hidden ? 0 : here;
    }
    document.getElementById("shown").textContent = `${count} ${count === 1 ? "row" : "rows"} shown`;
  };
  for (const name of ["suite", "family", "status"]) field(name).addEventListener("change", filter);
  field("sort").addEventListener("change", (event) => sortBy(event.target.value, FALLING.has(event.target.value)));
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const head of document.querySelectorAll("table.board thead th")) {
    head.firstElementChild.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      sortBy(head.dataset.key, before ? before === "ascending" : FALLING.has(head.dataset.key));
      field("sort").value = head.dataset.key;
    });
  }

  /* A world as a picture with words. */
  const facing = (heading) => data.headings[heading];
  const describe = ([high, wide, cells, [row, column, heading]]) => {
    const markers = cells.map((n, i) => [n, i]).filter(([n]) => n > 0);
    const places = markers.map(([n, i]) => `${n} in row ${Math.floor(i / wide)} column ${i % wide}`);
    return `World of ${high - 2} by ${wide - 2} cells. Robot in row ${row}, column ${column}, facing ${facing(heading)}. ` +
      (places.length ? `Markers: ${places.join("; ")}.` : "No markers.");
  };
  const draw = (world, trail) => {
    const [high, wide, cells, [row, column, heading]] = world;
    const picture = shape("svg", { viewBox: `0 0 ${wide * CELL} ${high * CELL}`, role: "img", "aria-label": describe(world) });
    cells.forEach((content, i) => {
      const x = (i % wide) * CELL, y = Math.floor(i / wide) * CELL;
      picture.append(shape("rect", { class: content < 0 ? "wall" : "floor", x, y, width: CELL, height: CELL }));
      if (content > 0) picture.append(shape("circle", { class: "marker", cx: x + CELL / 2, cy: y + CELL / 2, r: CELL * 0.36 }));
    });
    const centre = ([r, c]) => `${(c + 0.5) * CELL} ${(r + 0.5) * CELL}`;
    if (trail.length > 1) picture.append(shape("path", { class: "trail", d: `M${trail.map(centre).join("L")}` }));
    const x = (column + 0.5) * CELL, y = (row + 0.5) * CELL;
    picture.append(shape("path", {
      class: "robot", d: "M0 -11L9 9L0 5L-9 9Z", transform: `translate(${x} ${y}) rotate(${90 * heading})`,
    }));
    cells.forEach((content, i) => {
      if (content < 2) return;
      const place = { class: "count", x: (i % wide + 0.5) * CELL, y: (Math.floor(i / wide) + 0.5) * CELL + 5 };
      picture.append(shape("text", place, String(content)));
    });
    return picture;
  };
  /* The world after so many steps, and where the robot has been. */
  const after = (input, steps, count) => {
    const cells = [...input[2]];
    let robot = input[3];
    const trail = [robot];
    for (const [, next, changed] of steps.slice(0, count)) {
      for (const [place, content] of changed) cells[place] = content;
      robot = next;
      trail.push(robot);
    }
    return [[input[0], input[1], cells, robot], trail];
  };
  const unmoved = (input, steps, index) => {
    const before = index ? steps[index - 1][1] : input[3];
    return steps[index][2].length === 0 && steps[index][1].every((v, i) => v === before[i]);
  };

  class Player {
    constructor(place, plays) {
      Object.assign(this, { place, plays, step: 0, timer: null, example: 0 });
      this.pieces = [
        ...plays.tasks.map((task) => ({ task, label: `Task ${task.task}`, group: `Test tasks: ${task.kind}` })),
        ...(plays.blind ? plays.blind.programs : []).map((program) => ({
          program, label: `Program ${program.task}`, group: "Blind set, with what the probes read",
        })),
      ];
      this.build();
      this.choose();
    }

    build() {
      this.what = make("select");
      const groups = new Map();
      this.pieces.forEach((piece, i) => {
        if (!groups.has(piece.group)) groups.set(piece.group, make("optgroup", { label: piece.group }));
        groups.get(piece.group).append(make("option", { value: i }, piece.label));
      });
      this.what.append(...groups.values());
      const first = this.pieces.findIndex((piece) => piece.program);
      this.what.value = String(Math.max(0, first));
      this.which = make("select");
      this.other = make("select");
      for (const { name } of this.plays.blind ? this.plays.blind.semantics.slice(1) : []) {
        this.other.append(make("option", { value: name }, `${name}: ${data.meanings[name]}`));
      }
      const label = (words, field) => {
        field.id = `${this.place.closest(".view").id}-${words.split(" ")[0].toLowerCase()}`;
        return make("div", {}, make("label", { for: field.id }, words), field);
      };
      this.whichChoice = label("Example", this.which);
      this.otherChoice = label("Other meaning", this.other);
      const choices = make("div", { class: "choices" }, label("What to play", this.what), this.whichChoice, this.otherChoice);
      this.stage = make("div", { class: "stage", tabindex: 0, role: "group", "aria-label": "Worlds and program; arrow keys step, Home and End go to the ends" });
      const control = (name, act) => {
        const made = make("button", { type: "button" });
        this.label(made, name);
        made.addEventListener("click", act);
        return made;
      };
      this.button = control("Play", () => this.toggle());
      this.slider = make("input", { type: "range", min: 0, value: 0, step: 1, "aria-label": "Step" });
      this.count = make("span", { class: "number" });
      const controls = make("div", { class: "controls", role: "group", "aria-label": "Steps" },
        control("First step", () => this.go(0)), control("Previous step", () => this.go(this.step - 1)), this.button,
        control("Next step", () => this.go(this.step + 1)), control("Last step", () => this.go(this.last)),
        this.slider, this.count);
      this.said = make("p", { class: "said", role: "status", "aria-live": "polite" });
      this.reads = make("div", { class: "reads" });
      this.place.append(choices, this.stage, controls, this.said,
        make("p", { class: "keys" }, "Keys: ← → step, Home and End go to the ends, Space plays while the worlds have the focus."), this.reads);
      this.what.addEventListener("change", () => { this.example = 0; this.choose(); });
      this.which.addEventListener("change", () => { this.example = Number(this.which.value); this.choose(); });
      this.other.addEventListener("change", () => this.choose());
      this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
      this.place.addEventListener("keydown", (event) => this.key(event));
    }

    key(event) {
      if (["SELECT", "INPUT"].includes(event.target.tagName) || event.altKey || event.ctrlKey || event.metaKey) return;
      const moves = { ArrowLeft: this.step - 1, ArrowRight: this.step + 1, Home: 0, End: this.last };
      if (event.key in moves) this.go(moves[event.key]);
      else if (event.key === " " && event.target === this.stage) this.toggle();
      else return;
      event.preventDefault();
    }

    choose() {
      this.stop();
      const { task, program } = this.pieces[Number(this.what.value)];
      this.task = task;
      this.program = program;
      this.whichChoice.hidden = !(task && task.words);
      this.otherChoice.hidden = !program;
      if (task) {
        this.which.replaceChildren(...task.examples.map((one, i) =>
          make("option", { value: i }, `${i + 1}, ${one.shown ? "shown" : "held out"}: ${one.right ? "right" : "wrong"}`)));
        this.which.value = String(this.example);
      }
      this.words = (task || program).words;
      this.steps = task ? (this.words ? task.examples[this.example].steps : []) : program.under.original.steps;
      this.last = this.steps.length;
      this.slider.max = String(this.last);
      this.show(0);
    }

    toggle() {
      if (this.timer) { this.stop(); return; }
      if (this.step === this.last) this.show(0);
      this.timer = setInterval(() => {
        this.show(this.step + 1);
        if (this.step === this.last) this.stop();
      }, PAUSE);
      this.label(this.button, "Pause");
    }

    stop() {
      clearInterval(this.timer);
      this.timer = null;
      this.label(this.button, "Play");
    }

    label(button, name) {
      button.setAttribute("aria-label", name);
      button.title = name;
      const icon = shape("svg", { width: 16, height: 16, viewBox: "0 0 16 16", "aria-hidden": "true" }, shape("path", { d: ICONS[name] }));
      button.replaceChildren(icon);
    }

    go(step) {
      this.stop();
      this.show(step);
    }

    show(step) {
      this.step = Math.max(0, Math.min(this.last, step));
      this.slider.value = String(this.step);
      this.count.textContent = `${this.step} of ${this.last}`;
      const current = this.step ? this.steps[this.step - 1][0] : -1;
      const list = make("ol", { class: "program", "aria-label": "Program" }, ...(this.words || []).map((word, i) =>
        make("li", i === current ? { "aria-current": "step" } : {}, word)));
      this.stage.replaceChildren(...(this.task ? this.ofTask() : this.ofProgram()), list);
      this.reads.replaceChildren(...(this.program ? [this.table()] : []));
      const words = this.sentence();
      if (this.said.textContent !== words) this.said.textContent = words;
    }

    world(title, note, input, steps, count) {
      const [world, trail] = after(input, steps, Math.min(count, steps.length));
      return make("figure", { class: "world" }, make("figcaption", {}, title), draw(world, trail), make("p", {}, note));
    }

    ofTask() {
      const task = this.task;
      if (!task.words) {
        return [make("div", {}, make("p", {}, `What the model wrote is no program: ${task.problem || "it is empty"}`),
          make("pre", { tabindex: 0 }, make("code", {}, task.text || "(nothing)")))];
      }
      const one = task.examples[this.example];
      const end = one.status === "ok" ? (one.right ? "ends as wanted" : "does not end as wanted") : `ends by ${one.status}`;
      return [
        this.world("The model's program", end, one.input, one.steps, this.step),
        this.world("Wanted", `reference: ${task.reference.slice(0, -1).join(" ")}`, one.wanted, [], 0),
      ];
    }

    ofProgram() {
      const program = this.program, other = this.other.value;
      return [
        this.world("Original meaning", data.meanings.original, program.input, program.under.original.steps, this.step),
        this.world(`Other meaning: ${other}`, data.meanings[other], program.input, program.under[other].steps, this.step),
      ];
    }

    table() {
      const program = this.program, other = this.other.value, two = [["original", "Original"], [other, other]];
      const head = make("thead", {},
        make("tr", {}, make("th", { scope: "col", rowspan: 2 }, "step"), make("th", { scope: "col", rowspan: 2 }, "word"),
          ...two.map(([, title]) => make("th", { scope: "colgroup", colspan: 3 }, `${title}: ${this.plays.blind.feature}`))),
        make("tr", {}, ...two.flatMap(() => ["is", "probe reads", "probability of what is"].map((name) => make("th", { scope: "col" }, name)))));
      const body = make("tbody");
      program.under.original.steps.forEach(([word], i) => {
        const row = make("tr", i + 1 === this.step ? { "aria-current": "step" } : i + 1 > this.step ? { class: "ahead" } : {},
          make("th", { scope: "row" }, String(i + 1)), make("td", {}, program.words[word]));
        for (const [name] of two) {
          const { true: is, read, probability } = program.under[name];
          if (is[i] === null) {
            row.append(make("td", {}, "-"), make("td", {}, "-"), make("td", {}, "-"));
            continue;
          }
          const hit = is[i] === read[i];
          row.append(make("td", {}, `${ARROWS[is[i]]} ${facing(is[i])}`),
            make("td", { class: hit ? "right" : "wrong" }, `${hit ? "✓" : "✗"} ${ARROWS[read[i]]} ${facing(read[i])}`),
            make("td", { class: "number" }, probability[i].toFixed(2), this.odds(probability[i])));
        }
        body.append(row);
      });
      const stored = Object.fromEntries(this.plays.blind.semantics.map((one) => [one.name, one]));
      const notes = two.map(([name]) => `${name}: read from ${stored[name].view === "mean" ? "the mean over layers" : "the last layer"}` +
        (stored[name].prior ? ", no better on validation than the step's label frequencies, which the score takes instead" : ""));
      return make("div", {},
        make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "What the probes read" },
          make("table", { class: "plain" }, make("caption", { class: "hidden-words" }, "What the probes read after each word"), head, body)),
        make("p", { class: "note" }, `Probes of seed ${this.plays.blind.seed}, trained on other programs. ${notes.join("; ")}. ` +
          "Chance is 0.25. One program proves nothing; the verdict rests on all of them."));
    }

    odds(share) {
      return shape("svg", { class: "odds", width: 44, height: 8, viewBox: "0 0 44 8", "aria-hidden": "true" },
        shape("rect", { class: "track", width: 44, height: 8, rx: 2 }), shape("rect", { class: "range", width: 44 * share, height: 8, rx: 2 }));
    }

    sentence() {
      if (!this.words) return "There is nothing to run.";
      if (!this.step) return `Before the first step. ${this.last} ${this.last === 1 ? "step" : "steps"}.`;
      const [word, [row, column, heading], , value] = this.steps[this.step - 1];
      const input = this.task ? this.task.examples[this.example].input : this.program.input;
      let words = `Step ${this.step} of ${this.last}: ${this.words[word].replace("();", "")}`;
      if (value !== null) words += ` is ${value ? "true" : "false"}`;
      else if (unmoved(input, this.steps, this.step - 1)) words += " has no effect here";
      words += `. Robot in row ${row}, column ${column}, facing ${facing(heading)}.`;
      if (this.program) {
        const { true: is, read, probability } = this.program.under.original;
        const i = this.step - 1;
        if (is[i] !== null) words += ` The probe reads ${facing(read[i])}, and gives ${facing(is[i])} ${probability[i].toFixed(2)}.`;
      }
      if (this.task && this.step === this.last) {
        words += this.task.examples[this.example].right ? " As wanted." : " Not as wanted.";
      }
      return words;
    }
  }

  /* One view at a time, by the fragment. */
  const board = document.getElementById("board");
  const players = new Map();
  const show = (moved) => {
    const slug = decodeURIComponent(location.hash.slice(1));
    const wanted = slug ? document.getElementById(slug) : board;
    const view = wanted && wanted.closest(".view") || board;
    for (const one of document.querySelectorAll(".view")) one.classList.toggle("open", one === view);
    for (const player of players.values()) player.stop();
    const row = view.dataset.row;
    if (row && !players.has(row)) players.set(row, new Player(view.querySelector(".player"), data.rows[row]));
    document.title = (row ? `${view.querySelector("h1").textContent} - ` : "") + "Karel Semantics Benchmark";
    if (!moved) return;
    if (wanted === view || !wanted) {
      scrollTo(0, 0);
      view.focus({ preventScroll: true });
    } else wanted.scrollIntoView();
  };
  addEventListener("hashchange", () => { if (location.hash !== "#main") show(true); });
  filter();
  show(false);
})();

/* Player of programs. */
  const data = JSON.parse(document.getElementById("data").textContent);
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

  /* A world as a picture with a text description. */
  const facing = (heading) => data.headings[heading];
  const describe = ([height, width, cells, [row, column, heading]]) => {
    const markers = cells.map((n, i) => [n, i]).filter(([n]) => n > 0);
    const locations = markers.map(([n, i]) => `${n} in row ${Math.floor(i / width)} column ${i % width}`);
    return `World of ${height - 2} by ${width - 2} cells. Robot in row ${row}, column ${column}, facing ${facing(heading)}. ` +
      (locations.length ? `Markers: ${locations.join("; ")}.` : "No markers.");
  };
  const draw = (world, trail) => {
    const [height, width, cells, [row, column, heading]] = world;
    const picture = shape("svg", { viewBox: `0 0 ${width * CELL} ${height * CELL}`, role: "img", "aria-label": describe(world) });
    cells.forEach((content, i) => {
      const x = (i % width) * CELL, y = Math.floor(i / width) * CELL;
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
      const attributes = { class: "count", x: (i % width + 0.5) * CELL, y: (Math.floor(i / width) + 0.5) * CELL + 5 };
      picture.append(shape("text", attributes, String(content)));
    });
    return picture;
  };
  /* The world after `count` steps, and the robot's trail. */
  const after = (input, steps, count) => {
    const cells = [...input[2]];
    let robot = input[3];
    const trail = [robot];
    for (const [, next, changed] of steps.slice(0, count)) {
      for (const [index, content] of changed) cells[index] = content;
      robot = next;
      trail.push(robot);
    }
    return [[input[0], input[1], cells, robot], trail];
  };
  const hasNoEffect = (input, steps, index) => {
    const before = index ? steps[index - 1][1] : input[3];
    return steps[index][2].length === 0 && steps[index][1].every((v, i) => v === before[i]);
  };

  class Player {
    constructor(container, playerData) {
      Object.assign(this, { container, data: playerData, step: 0, timer: null, example: 0 });
      this.items = [
        ...playerData.tasks.map((task) => ({ task, label: `Task ${task.task}`, group: `Test tasks: ${task.kind}` })),
        ...(playerData.blind ? playerData.blind.programs : []).map((program) => ({
          program, label: `Program ${program.task}`, group: "Blind set, with probe predictions",
        })),
      ];
      if (!this.items.length) {
        container.append(make("p", {}, "No program of this row was at hand when this page was built."));
        return;
      }
      this.build();
      this.choose();
    }

    build() {
      this.itemSelect = make("select");
      const groups = new Map();
      this.items.forEach((item, i) => {
        if (!groups.has(item.group)) groups.set(item.group, make("optgroup", { label: item.group }));
        groups.get(item.group).append(make("option", { value: i }, item.label));
      });
      this.itemSelect.append(...groups.values());
      const first = this.items.findIndex((item) => item.program);
      this.itemSelect.value = String(Math.max(0, first));
      this.exampleSelect = make("select");
      this.semanticsSelect = make("select");
      for (const { name } of this.data.blind ? this.data.blind.semantics.slice(1) : []) {
        this.semanticsSelect.append(make("option", { value: name }, `${name}: ${data.meanings[name]}`));
      }
      const label = (words, field) => {
        field.id = `${this.container.closest(".view").id}-${words.split(" ")[0].toLowerCase()}`;
        return make("div", {}, make("label", { for: field.id }, words), field);
      };
      this.exampleChoice = label("Example", this.exampleSelect);
      this.semanticsChoice = label("Alternative semantics", this.semanticsSelect);
      const choices = make("div", { class: "choices" }, label("What to play", this.itemSelect), this.exampleChoice, this.semanticsChoice);
      this.stage = make("div", { class: "stage", tabindex: 0, role: "group", "aria-label": "Worlds and program; arrow keys step, Home and End go to the ends" });
      const control = (name, act) => {
        const element = make("button", { type: "button" });
        this.label(element, name);
        element.addEventListener("click", act);
        return element;
      };
      this.button = control("Play", () => this.toggle());
      this.slider = make("input", { type: "range", min: 0, value: 0, step: 1, "aria-label": "Step" });
      this.count = make("span", { class: "number" });
      const controls = make("div", { class: "controls", role: "group", "aria-label": "Steps" },
        control("First step", () => this.go(0)), control("Previous step", () => this.go(this.step - 1)), this.button,
        control("Next step", () => this.go(this.step + 1)), control("Last step", () => this.go(this.last)),
        this.slider, this.count);
      this.status = make("p", { class: "step-status", role: "status", "aria-live": "polite" });
      this.readings = make("div", { class: "reads" });
      this.container.append(choices, this.stage, controls, this.status,
        make("p", { class: "keys" }, "Keys: ← → step, Home and End go to the ends, Space plays while the worlds have the focus."), this.readings);
      this.itemSelect.addEventListener("change", () => { this.example = 0; this.choose(); });
      this.exampleSelect.addEventListener("change", () => { this.example = Number(this.exampleSelect.value); this.choose(); });
      this.semanticsSelect.addEventListener("change", () => this.choose());
      this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
      this.container.addEventListener("keydown", (event) => this.key(event));
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
      const { task, program } = this.items[Number(this.itemSelect.value)];
      this.task = task;
      this.program = program;
      this.exampleChoice.hidden = !(task && task.tokens);
      this.semanticsChoice.hidden = !program;
      if (task) {
        this.exampleSelect.replaceChildren(...task.examples.map((one, i) =>
          make("option", { value: i }, `${i + 1}, ${one.shown ? "shown" : "held out"}: ${one.right ? "right" : "wrong"}`)));
        this.exampleSelect.value = String(this.example);
      }
      this.tokens = (task || program).tokens;
      this.steps = task ? (this.tokens ? task.examples[this.example].steps : []) : program.under.original.steps;
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
      const list = make("ol", { class: "program", "aria-label": "Program" }, ...(this.tokens || []).map((word, i) =>
        make("li", i === current ? { "aria-current": "step" } : {}, word)));
      this.stage.replaceChildren(...(this.task ? this.taskView() : this.programView()), list);
      this.readings.replaceChildren(...(this.program ? [this.readingsTable()] : []));
      const words = this.sentence();
      if (this.status.textContent !== words) this.status.textContent = words;
    }

    world(title, note, input, steps, count) {
      const [world, trail] = after(input, steps, Math.min(count, steps.length));
      return make("figure", { class: "world" }, make("figcaption", {}, title), draw(world, trail), make("p", {}, note));
    }

    taskView() {
      const task = this.task;
      if (!task.tokens) {
        return [make("div", {}, make("p", {}, `The model's output is not a valid program: ${task.problem || "it is empty"}`),
          make("pre", { tabindex: 0 }, make("code", {}, task.text || "(nothing)")))];
      }
      const one = task.examples[this.example];
      const end = one.status === "ok" ? (one.right ? "output matches" : "output does not match") : `ends with ${one.status}`;
      return [
        this.world("The model's program", end, one.input, one.steps, this.step),
        this.world("Expected", `reference: ${task.reference.slice(0, -1).join(" ")}`, one.expected, [], 0),
      ];
    }

    programView() {
      const program = this.program, other = this.semanticsSelect.value;
      return [
        this.world("Original semantics", data.meanings.original, program.input, program.under.original.steps, this.step),
        this.world(`Alternative semantics: ${other}`, data.meanings[other], program.input, program.under[other].steps, this.step),
      ];
    }

    readingsTable() {
      const program = this.program, other = this.semanticsSelect.value, compared = [["original", "Original"], [other, other]];
      const head = make("thead", {},
        make("tr", {}, make("th", { scope: "col", rowspan: 2 }, "step"), make("th", { scope: "col", rowspan: 2 }, "word"),
          ...compared.map(([, title]) => make("th", { scope: "colgroup", colspan: 3 }, `${title}: ${this.data.blind.feature}`))),
        make("tr", {}, ...compared.flatMap(() => ["label", "probe prediction", "probability of label"].map((name) => make("th", { scope: "col" }, name)))));
      const body = make("tbody");
      program.under.original.steps.forEach(([word], i) => {
        const row = make("tr", i + 1 === this.step ? { "aria-current": "step" } : i + 1 > this.step ? { class: "ahead" } : {},
          make("th", { scope: "row" }, String(i + 1)), make("td", {}, program.tokens[word]));
        for (const [name] of compared) {
          const { labels, predictions, probability } = program.under[name];
          if (labels[i] === null) {
            row.append(make("td", {}, "-"), make("td", {}, "-"), make("td", {}, "-"));
            continue;
          }
          const isCorrect = labels[i] === predictions[i];
          row.append(make("td", {}, `${ARROWS[labels[i]]} ${facing(labels[i])}`),
            make("td", { class: isCorrect ? "right" : "wrong" }, `${isCorrect ? "✓" : "✗"} ${ARROWS[predictions[i]]} ${facing(predictions[i])}`),
            make("td", { class: "number" }, probability[i].toFixed(2), this.odds(probability[i])));
        }
        body.append(row);
      });
      const stored = Object.fromEntries(this.data.blind.semantics.map((one) => [one.name, one]));
      const notes = compared.map(([name]) => `${name}: predictions from ${stored[name].view === "mean" ? "the mean over layers" : "the last layer"}` +
        (stored[name].prior ? ", not better on validation than the label prior of the step, which the score uses instead" : ""));
      return make("div", {},
        make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Probe predictions" },
          make("table", { class: "plain" }, make("caption", { class: "hidden-words" }, "Probe predictions after each word"), head, body)),
        make("p", { class: "note" }, `Probes of seed ${this.data.blind.seed}, trained on other programs. ${notes.join("; ")}. ` +
          "Chance is 0.25. A single program is an illustration; the verdict is based on all test programs."));
    }

    odds(share) {
      return shape("svg", { class: "odds", width: 44, height: 8, viewBox: "0 0 44 8", "aria-hidden": "true" },
        shape("rect", { class: "track", width: 44, height: 8, rx: 2 }), shape("rect", { class: "range", width: 44 * share, height: 8, rx: 2 }));
    }

    sentence() {
      if (!this.tokens) return "There is no program to run.";
      if (!this.step) return `Before the first step. ${this.last} ${this.last === 1 ? "step" : "steps"}.`;
      const [word, [row, column, heading], , value] = this.steps[this.step - 1];
      const input = this.task ? this.task.examples[this.example].input : this.program.input;
      let words = `Step ${this.step} of ${this.last}: ${this.tokens[word].replace("();", "")}`;
      if (value !== null) words += ` is ${value ? "true" : "false"}`;
      else if (hasNoEffect(input, this.steps, this.step - 1)) words += " has no effect";
      words += `. Robot in row ${row}, column ${column}, facing ${facing(heading)}.`;
      if (this.program) {
        const { labels, predictions, probability } = this.program.under.original;
        const i = this.step - 1;
        if (labels[i] !== null) words += ` The probe predicts ${facing(predictions[i])}; probability of ${facing(labels[i])}: ${probability[i].toFixed(2)}.`;
      }
      if (this.task && this.step === this.last) {
        words += this.task.examples[this.example].right ? " Output matches." : " Output does not match.";
      }
      return words;
    }
  }

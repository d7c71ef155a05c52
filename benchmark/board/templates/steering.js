/* Player of edits: words that were stored with and without an edit of the robot's rotation, in the shown worlds. */
  const TURNS = [["3", "turn left"], ["2", "half turn"], ["1", "turn right"], [null, "no edit"]];
  const TURNED = { 3: "turned left", 2: "turned around", 1: "turned right" };

  class SteeringPlayer {
    constructor(container, steeringData) {
      Object.assign(this, { container, data: steeringData, step: 0, turn: null });
      this.build();
      this.choose(0);
    }

    build() {
      const id = `${this.container.closest(".view").id}-prefix`;
      this.prefixSelect = make("select", { id }, ...this.data.prefixes.map((prefix, i) =>
        make("option", { value: i }, `Task ${prefix.task}: ${this.text(prefix.prefix)}`)));
      this.prefixSelect.addEventListener("change", () => this.choose(Number(this.prefixSelect.value)));
      this.turnButtons = TURNS.map(([turn, name]) => {
        const element = make("button", { type: "button", "aria-pressed": "false" }, name);
        element.addEventListener("click", () => this.edit(turn));
        return [turn, element];
      });
      this.rows = make("div", { class: "edits", tabindex: 0, role: "group", "aria-label": "Shown worlds; arrow keys step, Home and End go to the ends" });
      const control = (name, act) => {
        const element = make("button", { type: "button" });
        Player.prototype.label(element, name);
        element.addEventListener("click", act);
        return element;
      };
      this.slider = make("input", { type: "range", min: 0, value: 0, step: 1, "aria-label": "Step of the prefix, the edit and the words after it" });
      this.count = make("span", { class: "number" });
      this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
      const controls = make("div", { class: "controls", role: "group", "aria-label": "Steps with and without the edit" },
        control("First step", () => this.show(0)), control("Previous step", () => this.show(this.step - 1)),
        control("Next step", () => this.show(this.step + 1)), control("Last step", () => this.show(this.last)),
        this.slider, this.count);
      this.status = make("p", { class: "step-status", role: "status" });
      this.words = make("div", { class: "reads" });
      this.container.append(make("h3", {}, "Turn the robot"),
        make("p", { class: "note" }, `Stored words of the measurement at ${this.data.site}; no model runs in this page. Stored are the next word with and without ` +
          `the edit${this.hasPrograms() ? " and, for some pairs, the whole program, with the edit at every word," : ""} for the first ${this.data.tasks} report tasks that have pairs, ` +
          "whatever was written there. Turns that are not a pair of that prefix were not measured and cannot be pressed. Worlds come from the interpreter."),
        make("div", { class: "choices" }, make("div", {}, make("label", { for: id }, "Task and prefix"), this.prefixSelect)),
        make("div", { class: "controls turns", role: "group", "aria-label": "Edit of the robot's rotation in the states" }, make("span", {}, "Edit the state: "), ...this.turnButtons.map(([, element]) => element)),
        this.status, this.rows, controls,
        make("p", { class: "keys" }, "Keys: ← → step, Home and End go to the ends, while the worlds have the focus."), this.words);
      this.container.addEventListener("keydown", (event) => this.key(event));
    }

    hasPrograms() {
      return this.data.prefixes.some((prefix) => prefix.unedited.rest || Object.values(prefix.turns).some((written) => written.rest));
    }

    /* Words in a sentence, and as a program. */
    name(word) {
      const text = this.data.words[word];
      return text === "}" ? "the closing bracket" : text.replace("();", "");
    }

    program(written) {
      return written.rest ? this.text([written.word, ...written.rest.words]) : this.name(written.word);
    }

    text(words) {
      return words.map((word) => this.data.words[word]).join(" ");
    }

    key(event) {
      if (["SELECT", "INPUT"].includes(event.target.tagName) || event.altKey || event.ctrlKey || event.metaKey) return;
      const moves = { ArrowLeft: this.step - 1, ArrowRight: this.step + 1, Home: 0, End: this.last };
      if (!(event.key in moves)) return;
      this.show(moves[event.key]);
      event.preventDefault();
    }

    choose(index) {
      this.prefix = this.data.prefixes[index];
      const written = [this.prefix.unedited, ...Object.values(this.prefix.turns)];
      this.last = this.prefix.prefix.length + 2 + Math.max(...written.map((program) => this.restWords(program).length));
      this.slider.max = String(this.last);
      for (const [turn, element] of this.turnButtons) {
        element.disabled = turn !== null && !(turn in this.prefix.turns);
        element.title = element.disabled ? "not a pair of this prefix, so not measured" : "";
      }
      this.edit(null, this.prefix.prefix.length);
    }

    edit(turn, step = this.last) {
      this.turn = turn;
      for (const [other, element] of this.turnButtons) element.setAttribute("aria-pressed", String(other === turn));
      this.show(step);
    }

    restWords(written) {
      return written.rest ? written.rest.words : [];
    }

    /* Steps of one example: the prefix, the edit (or nothing), and the words that were written. */
    steps(written, example) {
      const rest = written.rest ? written.rest.steps[example] : [];
      return [...this.prefix.steps[example], [null, written.robots[example], [], null], written.steps[example], ...rest];
    }

    /* What an example shows after the edit: the word that was executed last, or how the program ended. */
    note(written, example) {
      const after = this.step - this.prefix.prefix.length - 1;
      if (after === 0) return "robot in the state";
      const words = [written.word, ...this.restWords(written)];
      const ends = written.rest ? written.rest.ends : written.ends;
      if (after >= words.length && ends !== null) return `program ends: output ${ends[example] ? "matches" : "does not match"}`;
      return `after ${this.name(words[Math.min(after, words.length) - 1])}`;
    }

    row(title, written) {
      const length = this.prefix.prefix.length;
      const figures = this.prefix.inputs.map((input, example) => {
        const [world, trail] = after(input, this.steps(written, example), this.step);
        const note = this.step <= length ? `${this.step} of ${length} words` : this.note(written, example);
        return make("figure", { class: "world" }, make("figcaption", {}, `Example ${example + 1}`), draw(world, trail), make("p", {}, note));
      });
      return make("section", { class: "edit-row", "aria-label": title }, make("h4", {}, title), make("div", { class: "worlds" }, ...figures));
    }

    expected() {
      const figures = this.prefix.expected.map((world, example) =>
        make("figure", { class: "world" }, make("figcaption", {}, `Example ${example + 1}`), draw(world, [])));
      return make("section", { class: "edit-row", "aria-label": "Expected outputs" }, make("h4", {}, "Expected outputs"), make("div", { class: "worlds" }, ...figures));
    }

    show(step) {
      this.step = Math.max(0, Math.min(this.last, step));
      this.slider.value = String(this.step);
      this.count.textContent = `${this.step} of ${this.last}`;
      const { unedited, turns } = this.prefix, edited = turns[this.turn];
      const rows = [this.row(`Unedited: writes ${this.program(unedited)}`, unedited)];
      if (edited) rows.push(this.row(`Edited, robot ${TURNED[this.turn]}: writes ${this.program(edited)}`, edited));
      this.rows.replaceChildren(...rows, this.expected());
      this.words.replaceChildren(this.table(unedited, edited));
      const sentence = this.sentence(unedited, edited);
      if (this.status.textContent !== sentence) this.status.textContent = sentence;
    }

    sentence(unedited, edited) {
      const word = (index) => this.name(index);
      let sentence = `Step ${this.step} of ${this.last}: ${this.stepName(edited)}. Unedited, the model writes ${word(unedited.word)}.`;
      if (!edited) return `${sentence} Press a turn to see what it writes after the edit.`;
      const share = (written) => written.probability[edited.target].toFixed(2);
      sentence += ` With the robot ${TURNED[this.turn]} in its state it writes ${word(edited.word)}, ` +
        (edited.word === edited.target ? "which is the right word there" : `where ${word(edited.target)} would be right`) +
        ` (probability ${share(edited)} from the turned state, ${share(unedited)} from the actual one).`;
      return sentence + (edited.strict ? " A strict pair: a look-up from the turn and the words gives another word." : "");
    }

    stepName(edited) {
      const words = this.prefix.prefix;
      if (this.step === 0) return "the input worlds";
      if (this.step <= words.length) return `after ${words.slice(0, this.step).map((word) => this.name(word)).join(", ")}`;
      if (this.step <= words.length + 1) return edited ? `the edited state, robot ${TURNED[this.turn]}` : "the state before the next word";
      if (this.step === words.length + 2) return "the next word is executed";
      return `${this.step - words.length - 1} words after the prefix are executed`;
    }

    table(unedited, edited) {
      const columns = [["Actual state", unedited], ...(edited ? [[`Robot ${TURNED[this.turn]}`, edited]] : [])];
      const head = make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "next word"),
        ...columns.flatMap(([title]) => [`${title}: exact probability`, `${title}: model`].map((name) => make("th", { scope: "col" }, name)))));
      const body = make("tbody", {}, ...this.data.words.map((name, index) => make("tr", {}, make("th", { scope: "row" }, name),
        ...columns.flatMap(([, written]) => {
          const share = written.probability[index];
          const isBest = share === Math.max(...written.probability);
          const mark = written.word !== index ? "" : isBest ? "✓ writes it" : "✗ writes it";
          return [make("td", { class: "number" }, share.toFixed(2), Player.prototype.odds(share)),
            make("td", { class: mark ? (isBest ? "right" : "wrong") : "" }, mark)];
        }))));
      return make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Next words" },
        make("table", { class: "plain" }, make("caption", { class: "hidden-words" }, "Exact probability of the next word, and the word that the model writes"), head, body));
    }
  }

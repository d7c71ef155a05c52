/* The board: cells with their names, sorting and filtering. */
  const FIGURES = new Set(["shown", "held_out", "exact", "valid", "pass_at_k", "constrained", "represents", "uses", "merges"]);
  const MISSING = { represents: "not measured for this row", uses: "not measured for this row", merges: "not measured for this row" };

  /* A cell is short in the file: a verdict, a value and its interval. Here they become elements of their own. */
  const fillFigure = (cell, key, tasks) => {
    const verdict = cell.querySelector("b"), strip = cell.querySelector("svg");
    const text = [...cell.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data).join("").trim();
    const parts = [];
    if (verdict) {
      const tag = make("span", { class: `tag ${verdict.textContent.toLowerCase().replaceAll(" ", "-").replaceAll("/", "")}` }, verdict.textContent);
      if (verdict.title) tag.title = verdict.title;
      parts.push(tag);
    }
    if (cell.dataset.order !== undefined) {
      const cut = text.indexOf(" ");
      parts.push(make("span", { class: "value", title: `n = ${Number(cell.dataset.n || tasks).toLocaleString("en")}` }, text.slice(0, cut)), " ",
        make("span", { class: "ci" }, text.slice(cut + 1)));
    } else if (verdict) parts.push(make("span", { class: "ci why" }, text));
    else parts.push(make("span", { class: "none", title: MISSING[key] || "not defined for this row" }, text));
    if (strip) parts.push(strip);
    cell.replaceChildren(...parts);
    cell.className = "number";
    cell.dataset.order ??= "";
  };
  const fillRow = (row, columns, tasks) => {
    row.setAttribute("role", "row");
    columns.forEach(([key, name, isExtra], index) => {
      const cell = row.cells[index], text = cell.textContent;
      if (isExtra) cell.dataset.extra = "";
      cell.setAttribute("role", key === "model" ? "rowheader" : "cell");
      cell.dataset.name = name;
      if (FIGURES.has(key)) {
        cell.dataset.key = key;
        fillFigure(cell, key, tasks);
      } else if (key === "model") {
        const family = cell.querySelector(".family");
        cell.dataset.order = cell.firstElementChild.textContent;
        family.dataset.key = "family";
        family.dataset.order = row.dataset.family = family.textContent;
      } else if (key === "status") {
        cell.dataset.order = row.dataset.status = text;
        cell.replaceChildren(make("span", { class: "tag status" }, text.replaceAll("_", " ")));
      } else if (key === "parameters") {
        cell.className = "number";
        cell.dataset.order = text.replace(/\D/g, "");
        if (text.endsWith("*")) cell.replaceChildren(make("span", { class: "claimed", title: "claimed by the authors, not verified" }, text));
      } else {
        cell.className = "rank";
        cell.dataset.order = text === "-" ? "" : text;
      }
    });
  };

  /* Sorting and filtering. Rows become elements when they are first shown, since a thousand take a second. */
  const FIRST_ROWS = 200;
  const field = (name) => document.getElementById(`f-${name}`);
  const DESCENDING = new Set([...FIGURES, "parameters"]);
  const tables = [...document.querySelectorAll("table.board")].map((table) => {
    const columns = [...table.tHead.rows[0].cells].map((head) => [head.dataset.key, head.firstElementChild.textContent, "extra" in head.dataset]);
    const group = table.closest(".group");
    const lines = [...table.tBodies[0].rows].map((row) => ({
      row, filled: false, family: row.querySelector(".family").textContent, status: row.cells[columns.length - 1].textContent,
    }));
    return { table, columns, group, lines, limit: FIRST_ROWS, button: group.querySelector(".show-all") };
  });
  const orderOf = ({ row, family, status }, key, columns) => {
    if (key === "family") return family;
    if (key === "status") return status;
    const cell = row.cells[columns.findIndex(([other]) => other === key)];
    if (FIGURES.has(key)) return cell.dataset.order ?? "";
    if (key === "model") return cell.firstElementChild.textContent;
    return key === "parameters" ? cell.textContent.replace(/\D/g, "") : cell.textContent.replace("-", "");
  };
  const sortBy = (key, descending) => {
    const sign = descending ? -1 : 1;
    for (const { table, columns, lines } of tables) {
      const valued = lines.map((line) => [line, orderOf(line, key, columns)]);
      const number = valued.every(([, value]) => value === "" || !Number.isNaN(Number(value)));
      valued.sort(([, a], [, b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (number ? Number(a) - Number(b) : a.localeCompare(b));
      });
      valued.forEach(([line], index) => { lines[index] = line; });
      for (const head of table.tHead.querySelectorAll("th")) {
        if (head.dataset.key === key) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      }
    }
    filter();
    for (const { table, lines } of tables) table.tBodies[0].append(...lines.map(({ row }) => row));
  };
  const filter = () => {
    const [suite, family, status] = ["suite", "family", "status"].map((name) => field(name).value);
    let count = 0, shown = 0;
    for (const { table, columns, group, lines, limit, button } of tables) {
      group.hidden = suite !== "" && group.dataset.suite !== suite;
      let matches = 0;
      for (const line of lines) {
        const isMatch = (family === "" || line.family === family) && (status === "" || line.status === status);
        matches += isMatch;
        line.row.hidden = !isMatch || matches > limit;
        if (!line.row.hidden && !line.filled) {
          fillRow(line.row, columns, group.dataset.tasks);
          line.filled = true;
        }
      }
      table.classList.remove("long");
      group.querySelector(".empty").hidden = matches > 0;
      button.hidden = matches <= limit;
      button.textContent = `Show all ${matches.toLocaleString("en")} rows`;
      if (!group.hidden) [count, shown] = [count + matches, shown + Math.min(matches, limit)];
    }
    document.getElementById("shown").textContent =
      `${shown < count ? `${shown} of ` : ""}${count} ${count === 1 ? "row" : "rows"} shown`;
  };
  for (const entry of tables) {
    entry.button.addEventListener("click", () => {
      entry.limit = Infinity;
      filter();
      entry.lines[FIRST_ROWS].row.querySelector("a").focus({ preventScroll: true });
    });
  }
  /* What is filtered and sorted stands in the address, so that a view can be shared. */
  const DEFAULTS = { suite: "", family: "", status: "", sort: "rank", columns: "few" };
  /* Few columns at first; one that rows are sorted by is shown whatever is chosen. */
  const showColumns = () => {
    const isSortedByExtra = document.querySelector(`table.board th[data-extra][data-key="${field("sort").value}"]`) !== null;
    document.getElementById("board").classList.toggle("few", field("columns").value === "few" && !isSortedByExtra);
  };
  let isDescending = false;
  const writeAddress = () => {
    const query = new URLSearchParams(location.search);
    for (const [name, usual] of Object.entries(DEFAULTS)) {
      if (field(name).value === usual) query.delete(name);
      else query.set(name, field(name).value);
    }
    if (isDescending === DESCENDING.has(field("sort").value)) query.delete("order");
    else query.set("order", isDescending ? "descending" : "ascending");
    const text = query.toString();
    try {
      history.replaceState(null, "", `${location.pathname}${text && "?"}${text}${location.hash}`);
    } catch {
      /* Some browsers keep the address of a file as it is. */
    }
  };
  const sortAnew = (key, descending) => {
    field("sort").value = key;
    isDescending = descending;
    showColumns();
    sortBy(key, descending);
  };
  const readAddress = () => {
    const query = new URLSearchParams(location.search);
    for (const [name, usual] of Object.entries(DEFAULTS)) {
      const wanted = query.get(name) ?? usual;
      field(name).value = [...field(name).options].some((option) => option.value === wanted) ? wanted : usual;
    }
    const key = field("sort").value, order = query.get("order");
    const descending = ["ascending", "descending"].includes(order) ? order === "descending" : DESCENDING.has(key);
    showColumns();
    if (key === "rank" && !descending) filter();
    else sortAnew(key, descending);
  };
  for (const name of ["suite", "family", "status"]) {
    field(name).addEventListener("change", () => { filter(); writeAddress(); });
  }
  field("sort").addEventListener("change", (event) => {
    sortAnew(event.target.value, DESCENDING.has(event.target.value));
    writeAddress();
  });
  field("columns").addEventListener("change", () => { showColumns(); writeAddress(); });
  /* A link to what a column means opens the part that says it. */
  const openTerm = () => {
    const term = document.getElementById(fragment());
    if (term && term.closest("#reading")) {
      document.getElementById("reading").open = true;
      term.scrollIntoView();
    }
  };
  addEventListener("hashchange", openTerm);
  openTerm();
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const head of document.querySelectorAll("table.board thead th")) {
    head.firstElementChild.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      sortAnew(head.dataset.key, before ? before === "ascending" : DESCENDING.has(head.dataset.key));
      writeAddress();
    });
  }
  readAddress();

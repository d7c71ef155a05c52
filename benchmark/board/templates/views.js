  /* One view at a time, selected by the URL fragment. */
  const board = document.getElementById("board");
  const players = new Map(), steering = new Map();
  const show = (moved) => {
    const slug = fragment();
    const wanted = slug ? document.getElementById(slug) : board;
    const view = wanted && wanted.closest(".view") || board;
    tellUnknown(wanted ? "" : slug);
    for (const one of document.querySelectorAll(".view")) one.classList.toggle("open", one === view);
    for (const player of players.values()) player.stop();
    const row = view.dataset.row;
    if (row && !players.has(row)) players.set(row, new Player(view.querySelector(".player"), data.rows[row]));
    if (row && data.rows[row].steering && !steering.has(row)) {
      steering.set(row, new SteeringPlayer(view.querySelector(".steering"), data.rows[row].steering));
    }
    document.title = (row ? `${view.querySelector("h1").textContent} - ` : "") + "Karel Semantics Benchmark";
    if (!moved) return;
    if (wanted === view || !wanted) {
      scrollTo(0, 0);
      view.focus({ preventScroll: true });
    } else wanted.scrollIntoView();
  };
  addEventListener("hashchange", () => { if (location.hash !== "#main") show(true); });
  show(false);

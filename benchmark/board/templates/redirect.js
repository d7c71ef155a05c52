/* Addresses of rows from when the page was one file. */
  const { hash } = location;
  const linked = [...document.querySelectorAll("table.board th a")].find((link) => link.getAttribute("href") === `rows/${hash.slice(1)}.html`);
  if (linked) location.replace(linked.href);
  else if (fragment() && !document.getElementById(fragment())) {
    const unknown = document.getElementById("unknown");
    unknown.hidden = false;
    unknown.textContent = `No row has this address: ${fragment()}`;
  }

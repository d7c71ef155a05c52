/* Addresses of rows from when the page was one file. */
  const { hash } = location;
  const linked = [...document.querySelectorAll("table.board th a")].find((link) => link.getAttribute("href") === `rows/${hash.slice(1)}.html`);
  if (linked) location.replace(linked.href);
  else if (!document.getElementById(fragment())) tellUnknown(fragment());

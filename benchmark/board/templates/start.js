/* Elements and the theme, on every page. */
  const root = document.documentElement;
  root.classList.add("js");
  const SVG = "http://www.w3.org/2000/svg";

  /* Elements are created, never parsed from markup: submitters' text is only ever inserted as text. */
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

  /* What follows # in the address; as it stands where it is no valid encoding. */
  const fragment = () => {
    const text = location.hash.slice(1);
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  };

  /* Above the board: that no row has the address; empty takes it away. */
  const tellUnknown = (slug) => {
    const unknown = document.getElementById("unknown");
    unknown.hidden = !slug;
    unknown.textContent = slug && `No row has this address: ${slug}`;
  };

  /* Theme: system, light, dark. */
  const themes = ["system", "light", "dark"];
  const button = document.getElementById("theme");
  const setTheme = (theme) => {
    if (theme === "system") root.removeAttribute("data-theme");
    else root.dataset.theme = theme;
    button.lastElementChild.textContent = `theme: ${theme}`;
    button.setAttribute("aria-label", `Colour theme: ${theme}`);
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
      /* Without storage, the choice lasts as long as the page. */
    }
  });

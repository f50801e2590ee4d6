// What scrolls sideways can be reached by the keyboard, and a screen reader can tell the theme's asides apart.
document.addEventListener("DOMContentLoaded", () => {
  for (const part of document.querySelectorAll("pre, .table-wrapper, div.math")) {
    part.tabIndex = 0;
  }
  const landmarks = { ".sidebar-drawer": "All pages", ".toc-drawer": "This page", ".content-icon-container": "Source" };
  for (const [selector, name] of Object.entries(landmarks)) {
    const part = document.querySelector(selector);
    part?.setAttribute("aria-label", name);
    if (part?.tagName === "DIV") part.setAttribute("role", "region");
  }
});

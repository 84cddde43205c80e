// Tables and outputs that are wider than their column scroll: by keyboard, too
function focusable() {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset .output"))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0
    else box.removeAttribute("tabindex")
}
addEventListener("load", () => setTimeout(focusable, 100)) // the theme has wrapped the tables by then
addEventListener("resize", focusable)

// Tables and blocks of code that are wider than the window can be scrolled by keyboard too.
const letScroll = () => {
  for (const part of document.querySelectorAll(".md-typeset__scrollwrap, .md-typeset pre > code")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  }
};
// The theme wraps tables after the page has loaded.
new MutationObserver(letScroll).observe(document.body, { childList: true, subtree: true });
addEventListener("resize", letScroll);
letScroll();

// Plotly figures beside a view's own front end. Joined in front of a view's module.

/**
 * Plotly may measure before it is on the page, and never measures again by itself; told to, it does.
 * @param {HTMLElement} el a part of the view
 * @param {string} selector of the whole view, whose height changes when a figure is drawn
 * @returns {() => void} ends it
 */
function fitPlots(el, selector) {
  function fit() {
    const plot = el.closest(selector)?.querySelector('.js-plotly-plot');
    const drawn = plot?.querySelector('.main-svg');
    if (plot && drawn && Math.abs(plot.clientWidth - drawn.clientWidth) > 1) window.dispatchEvent(new Event('resize'));
  }
  const sizes = new ResizeObserver(fit);
  const attached = new ResizeObserver(() => {
    const whole = el.closest(selector);
    if (!whole) return;
    attached.disconnect();
    sizes.observe(whole);
  });
  attached.observe(el);
  return () => { attached.disconnect(); sizes.disconnect(); };
}

// @ts-check
// Loads the monitor's front end, with its 5 MB of plotly.js, while the form is filled in: after Start the page would
// need a second for it. Joined behind server.js, in front of a view's module.

const WARM_MS = 1000;

/** Once a page; where no Jupyter server gives the front end out, the kernel's copy comes with the monitor all the same. */
function warm() {
  const mark = 'llfWarm';
  if (mark in document.documentElement.dataset || 'llfPlotly' in globalThis) return;
  document.documentElement.dataset[mark] = '';
  setTimeout(async () => {
    const { status, answer } = await askServer('monitor');
    if (status !== 200 || 'llfPlotly' in globalThis) return;
    const address = URL.createObjectURL(new Blob([answer.module], { type: 'text/javascript' }));
    await import(/* webpackIgnore: true */ address).finally(() => URL.revokeObjectURL(address));
  }, WARM_MS);
}

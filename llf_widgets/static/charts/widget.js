// The front end of `llf_widgets.charts.Charts`: one figure.

/** @param {{model: any, el: HTMLElement}} context */
function render({ model, el }) {
  const chart = plotlyChart(model.get('label'), point => model.send({ type: 'click', ...point }));
  const draw = () => { if (model.get('figure').data) chart.show(model.get('figure')); };
  el.classList.add('llf-Part');
  el.append(chart.box);
  model.on('change:figure', draw);
  draw();
  return () => {
    model.off('change:figure', draw);
    chart.close();
  };
}

export default { initialize, render };

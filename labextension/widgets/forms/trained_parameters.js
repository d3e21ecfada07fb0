import { drawServers, drawTrained, shareOf } from '../../src/trained';
import { drawIfChanged, h } from '../shared/dom.js';
import { resultControls } from './result_controls.js';

/** @import { Context } from '../shared/model' */

/**
 * Draws what the form's values will train: the servers that load the result, and on request the table of layers and
 * modules, which a process of the kernel makes.
 * @param {Context} context
 */
export function trainedParameters({ model, el }) {
  const controls = resultControls(model, 'Show what is trained', 'show');
  const servers = h('div', {});
  const body = h('div', {});
  el.replaceChildren(
    h('div', { class: 'llf-Preview' }, servers, ...controls.nodes, body)
  );

  /** Draws a part, or nothing if there is no data. */
  const drawPart = (
    /** @type {HTMLElement} */ part,
    /** @type {any} */ data,
    /** @type {(data: any) => HTMLElement[]} */ drawData
  ) =>
    drawIfChanged(part, data, () =>
      Object.keys(data).length ? drawData(data) : []
    );

  const draw = () => {
    controls.draw(false);
    drawPart(servers, model.get('_servers'), data => [drawServers(data)]);
    drawPart(
      body,
      model.get('_state') === 'done' ? model.get('_grid') : {},
      grid => [
        h('p', { class: 'llf-Trained-share' }, shareOf(grid)),
        drawTrained(grid)
      ]
    );
  };
  model.on('change', draw);
  draw();
  return () => model.off('change', draw);
}

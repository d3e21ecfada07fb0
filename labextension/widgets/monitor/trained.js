// What the run trains and which servers load its result, in one line that opens.

import { drawServers, drawTrained, shareOf } from '../../src/trained';
import { drawIfChanged, h, setText } from '../shared/dom.js';

/** @import { Feed } from './feed.js' */
/** @import { IParameterGrid, IServers } from '../../src/trained' */

/** Draws what the run trains. @param {Feed} feed */
export function trainedSection(feed) {
  const share = h('span', {});
  const grid = h('div');
  const servers = h('div');
  const details = h(
    'details',
    {},
    h('summary', {}, h('h3', {}, 'What is trained'), ' ', share),
    grid
  );
  const box = h(
    'section',
    { class: 'llf-Monitor-trained', 'aria-label': 'What is trained' },
    details,
    servers
  );

  function draw() {
    /** @type {{grid?: IParameterGrid | null, servers?: IServers | null}} */
    const data = feed.get('trained') ?? {};
    box.hidden = !data.grid && !data.servers;
    details.hidden = !data.grid;
    setText(share, data.grid ? shareOf(data.grid) : '');
    drawIfChanged(grid, data.grid ?? null, () =>
      data.grid ? [drawTrained(data.grid)] : []
    );
    drawIfChanged(servers, data.servers ?? null, () =>
      data.servers ? [drawServers(data.servers)] : []
    );
  }

  feed.on('trained', draw);
  draw();
  return { box };
}

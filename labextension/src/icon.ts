import { LabIcon } from '@jupyterlab/ui-components';

/** Icon of LLF: a falling loss curve. */
export const llfIcon = new LabIcon({
  name: 'llf:curve',
  svgstr:
    '<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">' +
    '<path class="jp-icon3 jp-icon-selectable" fill="#616161" d="M3 3h2v16h16v2H3z"/>' +
    '<path class="jp-icon3 jp-icon-selectable" fill="#616161" ' +
    'd="M7.2 4.6 9 4c1 4.600 2.600 7.500 5 8.800 1.700.9 3.900 1.400 6.700 1.500v2' +
    'c-3.200-.1-5.700-.7-7.700-1.800-2.900-1.600-4.800-4.900-5.800-9.900z"/>' +
    '</svg>'
});

/** The icon as an image URL, for places that take no `LabIcon`; its colour is visible on light and dark themes. */
export const llfIconUrl = `data:image/svg+xml,${encodeURIComponent(
  llfIcon.svgstr.replace(/#616161/g, '#1e88e5')
)}`;

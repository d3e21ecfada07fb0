import { expect, it, vi } from 'vitest';

import { startControls } from '../forms/start_controls.js';

it.each([
  [true, 'Run this cell again. The new form offers to restore your changes.'],
  [
    false,
    'To keep the settings, copy the YAML. Then run this cell again and paste it.'
  ]
])('says how the settings outlive the kernel if they are kept: %s', async (kept, said) => {
  const traits: Record<string, unknown> = { _sentence: [], _messages: [], keeps_settings: kept };
  const model = {
    get: (name: string) => traits[name] ?? '',
    on: () => undefined,
    off: () => undefined,
    widget_manager: { get_model: async () => ({ comm_live: false }) }
  };
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  startControls({ model: model as any, el: document.body });
  await vi.waitFor(() =>
    expect(document.querySelector('[role=alert]')?.textContent).toBe(
      `ErrorThe kernel of this form has shut down. Started runs are not affected. ${said}`
    )
  );
}); // prettier-ignore

import { expect, it, vi } from 'vitest';

/** The part of a feed that the section uses. */
const feed = { get: () => undefined, on: () => undefined };

/** Draws a section as a widget does that has loaded a module of its own. */
async function drawInOwnModule(): Promise<HTMLElement> {
  vi.resetModules();
  const { completionsSection } = await import('../monitor/completions.js');
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  return completionsSection(feed as any).box;
}

it('differ in two views of one page, though each has a module of its own', async () => {
  const boxes = [await drawInOwnModule(), await drawInOwnModule()];
  document.body.replaceChildren(...boxes);
  for (const box of boxes) {
    const heading = box.getAttribute('aria-labelledby')!;
    expect(document.getElementById(heading)?.closest('section')).toBe(box);
  }
});

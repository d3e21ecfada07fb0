import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    environment: 'jsdom',
    include: ['{src,widgets}/__tests__/**/*.spec.{ts,tsx}'],
    setupFiles: ['src/__tests__/setup.ts'],
    testTimeout: 120_000, // ms after which a test is hopeless, also on a machine that others use
    // JupyterLab's packages are ES modules that import CSS and JSON.
    server: {
      deps: { inline: [/@jupyterlab/, /@lumino/, /@jupyter/, /@microsoft/] }
    }
  }
});

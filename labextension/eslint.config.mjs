import js from '@eslint/js';
import jupyterPlugin from '@jupyter/eslint-plugin';
import { defineConfig } from 'eslint/config';
import prettierRecommended from 'eslint-plugin-prettier/recommended';
import globals from 'globals';
import tseslint from 'typescript-eslint';

export default defineConfig([
  {
    ignores: [
      'node_modules/**',
      'lib/**',
      'style/**',
      '**/*.d.ts',
      '*.mjs',
      'schema/**'
    ]
  },
  js.configs.recommended,
  tseslint.configs.recommended,
  { files: ['src/**'], extends: [jupyterPlugin.configs.recommended] },
  prettierRecommended, // turns off rules that the ones below turn on again
  {
    files: ['src/**/*.ts', 'src/**/*.tsx'],
    ignores: ['src/__tests__/**'],
    languageOptions: {
      globals: globals.browser,
      parserOptions: { project: 'tsconfig.json', sourceType: 'module' }
    }
  },
  {
    files: ['**/*.ts', '**/*.tsx', '**/*.mts'],
    plugins: { jupyter: jupyterPlugin },
    rules: {
      '@typescript-eslint/naming-convention': [
        'error',
        {
          selector: 'interface',
          format: ['PascalCase'],
          custom: { regex: '^I[A-Z]', match: true }
        }
      ],
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { args: 'none' }],
      curly: ['error', 'all'],
      eqeqeq: 'error',
      'prefer-arrow-callback': 'error'
    }
  },
  {
    files: ['src/__tests__/**'],
    rules: { 'jupyter/no-untranslated-string': 'off' } // nobody reads them
  },
  {
    files: ['widgets/**/*.js'],
    languageOptions: { globals: globals.browser },
    rules: {
      '@typescript-eslint/no-unused-vars': ['error', { args: 'none' }],
      curly: ['error', 'all'],
      eqeqeq: 'error',
      'no-eval': 'error',
      'prefer-arrow-callback': 'error',
      // data of a run must not be parsed as HTML: see `h` in widgets/shared/dom.js
      'no-restricted-properties': [
        'error',
        ...['innerHTML', 'outerHTML', 'insertAdjacentHTML', 'write'].map(
          property => ({
            property,
            message: 'It parses text as HTML. Use h() and setText().'
          })
        )
      ]
    }
  }
]);

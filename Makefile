# Every target is one npm script; `npm run` lists them.
.PHONY: demo test down bench campaign

demo test down bench campaign: node_modules
	npm run --silent $@

node_modules: package.json package-lock.json
	npm ci --no-audit --no-fund
	@touch node_modules

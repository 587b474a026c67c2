# memwatch's build. `make help` lists the targets.
#
# Files are built below $(B). A sanitizer build is the same rules again with another $(B), CC and SANITIZE, so that
# nothing is ever linked from objects of two kinds. The file targets ($(B)/libmemwatch.a, ...) need a compiler and the
# libraries' headers, nothing else: setup.py asks for them by name. The named targets install what is missing first.

B         ?= build
CC        ?= gcc
AR        ?= ar
OBJCOPY   ?= objcopy
PYTHON    ?= python3
PREFIX    ?= /usr/local
DESTDIR   ?=
WERROR    ?= $(if $(wildcard .git),-Werror)
CFLAGS    ?= -O2 -g
SANITIZE  ?=
DEMO_SECONDS ?= 20
JOBS      ?= $(shell nproc 2>/dev/null || echo 2)

VENV      := .venv
VENV_PY   := $(VENV)/bin/python
VERSION   := $(shell sed -n 's/^.define MEMWATCH_VERSION "\(.*\)"/\1/p' native/include/memwatch/memwatch.h)
# Raised by one with a release that programs built before it cannot run with: docs/c.md.
SONAME    := 0

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-6s %s\n'
MAKEFLAGS += --no-print-directory
endif

# The rules that build in parallel do so in a make of their own, so that what they need is installed before this file is
# read again, and so that a plain `make test` uses every core.
SUBMAKE = +@$(MAKE) $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))

# The sanitizers' code makes gcc see values unset or overwritten; its fences are not known to the thread sanitizer.
SAN_CFLAGS = -O1 -g -Wno-maybe-uninitialized -Wno-clobbered
ASAN  = B=build/asan SANITIZE=address CFLAGS="$(SAN_CFLAGS)"
UBSAN = B=build/ubsan SANITIZE=undefined CFLAGS="$(SAN_CFLAGS) -fno-sanitize-recover=all -DMEMWATCH_UBSAN"
TSAN  = B=build/tsan SANITIZE=thread CFLAGS="$(SAN_CFLAGS) -Wno-tsan"

NATIVE_C   := $(sort $(shell find native/src -name '*.c' 2>/dev/null))
EXPORTER_C := $(sort $(shell find exporter/src -name '*.c' 2>/dev/null))
RECORDER_C := $(sort $(shell find recorder/src -name '*.c' 2>/dev/null))
TEST_C     := $(sort $(wildcard tests/native/*.c tests/hostile/*.c))
STRESS_C   := $(sort $(wildcard tests/stress/*.c))
FUZZ_C     := $(sort $(wildcard tests/fuzz/*.c))
BENCH_C    := $(sort $(wildcard bench/*.c))
EXAMPLE_C  := $(sort $(wildcard examples/*.c))
PAGE       := $(sort $(wildcard exporter/page/*))
EXT_FILES  := $(sort $(wildcard python/ext/*.[ch] python/ext/*.inc)) setup.py

objects = $(patsubst %.c,$(B)/obj/%.o,$(1))
programs = $(patsubst %.c,$(B)/%,$(1))

C_FLAGS = -std=gnu11 $(CFLAGS) -fPIC -pthread -fvisibility=hidden -Wall -Wextra -Wshadow -Wconversion $(WERROR) \
	  $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer) -D_GNU_SOURCE= -MMD -MP
C_INCLUDE = -Inative/include -Iexporter/include -Irecorder/include -I$(B)
INTERNALS = -Inative/src -Iexporter/src -Irecorder/src
LD_FLAGS = -pthread $(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(LDFLAGS)
ONE_OBJECT = $(CC) $(filter -flto%,$(CFLAGS)) $(if $(filter -flto%,$(CFLAGS)),-flinker-output=nolto-rel) -r -nostdlib
LOCALIZE = $(OBJCOPY) --localize-hidden
BUILT_WITH = $(CC) $(C_FLAGS) $(LD_FLAGS) $(LOCALIZE)
SO_FLAGS = -shared -Wl,-z,relro,-z,now,-z,nodelete $(if $(SANITIZE),,-Wl,-z,defs)

NATIVE_LIBS   = -ldw -lelf -ldl -lpthread
EXPORTER_LIBS = -lmicrohttpd -lcjson -lz
RECORDER_LIBS = -lsqlite3

LIBRARIES = memwatch memwatch_exporter memwatch_recorder

.DEFAULT_GOAL := build
.SUFFIXES:
.DELETE_ON_ERROR:
.SECONDARY:

##@ Use

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } \
	     /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	     /^[a-z][a-z0-9_-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@printf '\nVariables: V=1 shows the commands, CC, CFLAGS, PYTHON (python3), PREFIX (/usr/local), DESTDIR, DEMO_SECONDS (20), FUZZ_SECONDS (10), SOAK_SECONDS (600), MACHINES (host 5.10 6.1 6.12 7.2).\n'

.PHONY: build
build: ## build the libraries, the Python extension and the C examples
	@scripts/bootstrap build
	$(SUBMAKE) all-files

.PHONY: demo
demo: ## run the demo service for DEMO_SECONDS (20), with its exporter and its events as they happen
	@scripts/bootstrap demo
	$(SUBMAKE) all-files
	@$(VENV_PY) examples/service_demo.py --seconds $(DEMO_SECONDS)

.PHONY: stack
stack: ## run the demo service and Prometheus with our configuration and rules, until interrupted
	@scripts/bootstrap stack
	$(SUBMAKE) all-files
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" dashboards/stack

.PHONY: examples
examples: build ## run every example, Python and C
	@scripts/run_examples

INSTALL = scripts/install "$(B)" "$(VERSION)" "$(SONAME)" "$(DESTDIR)" "$(PREFIX)"

.PHONY: install
install: build ## do what install-c does, and install the package into PYTHON
	@$(INSTALL) add-c
	@$(INSTALL) add-package "$(PYTHON)"

.PHONY: install-c
install-c: ## install the C libraries below DESTDIR/PREFIX, for pkg-config, CMake and Meson; without Python
	@scripts/bootstrap c
	$(SUBMAKE) libraries
	@$(INSTALL) add-c

.PHONY: uninstall
uninstall: ## remove what install has put there
	@$(INSTALL) remove

.PHONY: uninstall-c
uninstall-c: ## remove what install-c has put there
	@$(INSTALL) remove-c

.PHONY: wheel
wheel: ## make wheels that need none of our libraries, for every Python of this machine, in dist/
	@scripts/bootstrap test
	$(SUBMAKE) all-files
	@scripts/wheel

.PHONY: clean
clean: ## remove what was built (the virtual environments stay)
	$(Q)rm -rf build python/memwatch/_*.so python/memwatch/_built.py python/*.egg-info .pytest_cache .mypy_cache .ruff_cache
	$(Q)find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

##@ Check

.PHONY: test
test: ## build, then run every test; installs what is missing
	@scripts/bootstrap test
	$(SUBMAKE) all-files test-programs
	@scripts/test

.PHONY: stress
stress: ## run every test, those of load at their full length
	@MEMWATCH_STRESS=1 $(MAKE) test

.PHONY: test-pythons
test-pythons: ## run the package's tests, or TESTS, on the newer CPythons of a Debian tree, kept in ~/.cache/memwatch
	@scripts/test_pythons $(TESTS)

.PHONY: test-wheels
test-wheels: ## install wheel and source distribution in bare Debian 12, 13 and forky, kept in ~/.cache/memwatch
	@scripts/test_wheels

.PHONY: test-install-c
test-install-c: ## run install-c in bare Debian 12 and 13, kept in ~/.cache/memwatch, and build C programs there
	@scripts/test_install_c

.PHONY: lint
lint: ## check format, style and types of the C, Python and shell sources
	@scripts/bootstrap test
	@$(MAKE) -s $(B)/exporter_page.h
	@scripts/lint

.PHONY: abi
abi: ## compare the libraries' binary interface with that of the last release, which tests/abi holds
	@scripts/bootstrap build
	$(SUBMAKE) libraries
	@scripts/abi check "$(B)"

.PHONY: format
format: ## format the C sources in place
	@scripts/bootstrap test
	$(Q)clang-format -i $(shell find native exporter recorder python/ext tests examples bench -name '*.[ch]' 2>/dev/null)

.PHONY: test-asan
test-asan: ## run the native tests under the address sanitizer
	@scripts/bootstrap test
	$(SUBMAKE) $(ASAN) test-programs
	@scripts/test_native build/asan

.PHONY: test-ubsan
test-ubsan: ## run the native tests under the undefined-behaviour sanitizer
	@scripts/bootstrap test
	$(SUBMAKE) $(UBSAN) test-programs
	@scripts/test_native build/ubsan

.PHONY: test-tsan
test-tsan: ## run the native tests under the thread sanitizer
	@scripts/bootstrap test
	$(SUBMAKE) $(TSAN) test-programs
	@scripts/test_native build/tsan

.PHONY: asan ubsan tsan
asan: ## build libraries and tests with the address sanitizer, in build/asan
	$(SUBMAKE) $(ASAN) libraries test-programs
ubsan: ## build them with the undefined-behaviour sanitizer, in build/ubsan
	$(SUBMAKE) $(UBSAN) libraries test-programs
tsan: ## build them with the thread sanitizer, in build/tsan
	$(SUBMAKE) $(TSAN) libraries test-programs

.PHONY: test-machines
test-machines: ## run the checks of every machine: kernels of Debian in virtual machines, containers' seccomp filters (as root)
	@scripts/bootstrap test
	$(SUBMAKE) all-files test-programs
	@scripts/machines/run $(MACHINES)

.PHONY: hostile
hostile: ## run CPython's and NumPy's own suites, or SUITES (--short: a choice), with all memory watched and without, and compare
	@scripts/bootstrap test
	$(SUBMAKE) all-files
	@scripts/hostile $(SUITES)

.PHONY: test-arm64
test-arm64: ## compile the core and its tests for arm64, and run a choice of them in a virtual machine
	@scripts/machines/arm64

.PHONY: fuzz
fuzz: ## fuzz the parsers and writers, FUZZ_SECONDS (10) each
	@scripts/bootstrap test
	$(SUBMAKE) B=build/fuzz CC=clang SANITIZE=address,undefined,fuzzer-no-link CFLAGS="-O1 -g" fuzz-programs
	@scripts/fuzz build/fuzz

.PHONY: soak
soak: ## run the stress programs, or those named in SOAK (SOAK=daemon), for SOAK_SECONDS (600) each
	@scripts/bootstrap build
	$(SUBMAKE) all-files stress-programs
	@scripts/soak $(SOAK)

.PHONY: bench
bench: ## measure what watching costs, beside the bare mechanisms
	@scripts/bootstrap demo
	$(SUBMAKE) all-files bench-programs
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" bench/run

# --- what the targets above build -----------------------------------------------------------------------------------

.PHONY: all-files libraries test-programs stress-programs fuzz-programs bench-programs
all-files: libraries $(call programs,$(EXAMPLE_C)) $(if $(wildcard setup.py),$(B)/extension.stamp)
libraries: $(foreach name,$(LIBRARIES),$(B)/lib$(name).a $(B)/lib$(name).so $(B)/$(name).pc)
test-programs: $(call programs,$(TEST_C) $(STRESS_C))
stress-programs: $(call programs,$(STRESS_C))
fuzz-programs: $(call programs,$(FUZZ_C))
bench-programs: $(call programs,$(BENCH_C))

# What was built with other flags is built again.
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(BUILT_WITH)' | cmp -s - $@ || echo '$(BUILT_WITH)' > $@
.PHONY: FORCE
FORCE:

# Handlers run in threads without the C library's storage, too, which is where a stack protector reads.
$(B)/obj/native/%.o: native/%.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(C_FLAGS) $(if $(filter native/src/fault/% native/src/base/%,$<),-fno-stack-protector) \
		$(C_INCLUDE) -Inative/src -c -o $@ $<

$(B)/obj/exporter/%.o: exporter/%.c $(B)/flags $(if $(PAGE),$(B)/exporter_page.h)
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(C_FLAGS) $(C_INCLUDE) -Iexporter/src -c -o $@ $<

$(B)/obj/recorder/%.o: recorder/%.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(C_FLAGS) $(C_INCLUDE) -Irecorder/src -c -o $@ $<

$(B)/obj/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(C_FLAGS) $(C_INCLUDE) $(INTERNALS) -c -o $@ $<

$(B)/exporter_page.h: exporter/embed $(PAGE)
	@mkdir -p $(@D)
	$(say) EMBED $@
	$(Q)sh exporter/embed $@

$(B)/libmemwatch.a $(B)/libmemwatch.so $(B)/internal/libmemwatch.a: $(call objects,$(NATIVE_C))
$(B)/libmemwatch_exporter.a $(B)/libmemwatch_exporter.so $(B)/internal/libmemwatch_exporter.a: \
	$(call objects,$(EXPORTER_C))
$(B)/libmemwatch_recorder.a $(B)/libmemwatch_recorder.so $(B)/internal/libmemwatch_recorder.a: \
	$(call objects,$(RECORDER_C))

# An archive is one object in which only the public functions are global: hidden names are hidden in shared libraries
# only, and a host's own log_read or event_new must never meet ours. setup.py asks for an archive and then reads its
# flags with pkg-config.
$(B)/lib%.a: | $(B)/%.pc
	$(say) AR $@
	$(Q)$(ONE_OBJECT) -o $(B)/obj/$*.o $^ && $(LOCALIZE) $(B)/obj/$*.o
	$(Q)rm -f $@ && $(AR) rcs $@ $(B)/obj/$*.o

# The same with all names, for the programs of this tree; it refers to the objects.
$(B)/internal/lib%.a:
	@mkdir -p $(@D)
	$(say) AR $@
	$(Q)rm -f $@ && $(AR) rcsT $@ $^

# Each shared library is built under its full name; the two shorter names point to it.
$(B)/libmemwatch.so: SO_LIBS = $(NATIVE_LIBS)
$(B)/libmemwatch_exporter.so: SO_LIBS = -L$(B) -lmemwatch $(EXPORTER_LIBS) -lpthread
$(B)/libmemwatch_recorder.so: SO_LIBS = -L$(B) -lmemwatch $(RECORDER_LIBS) -lpthread
$(B)/libmemwatch_exporter.so $(B)/libmemwatch_recorder.so: $(B)/libmemwatch.so
$(B)/libmemwatch.so: native/libmemwatch.map
$(B)/libmemwatch_exporter.so: exporter/libmemwatch_exporter.map
$(B)/libmemwatch_recorder.so: recorder/libmemwatch_recorder.map
$(B)/lib%.so:
	$(say) LD $@
	$(Q)$(CC) $(SO_FLAGS) $(LD_FLAGS) -Wl,-soname,$(@F).$(SONAME) -Wl,--version-script=$(filter %.map,$^) \
		-o $@.$(VERSION) $(filter %.o,$^) $(SO_LIBS)
	$(Q)ln -sf $(@F).$(VERSION) $@.$(SONAME) && ln -sf $(@F).$(VERSION) $@

# pkg-config files for use from the build directory; scripts/install writes the installed ones from the same templates.
$(B)/memwatch.pc: INCLUDE = native/include
$(B)/memwatch_exporter.pc: INCLUDE = exporter/include
$(B)/memwatch_recorder.pc: INCLUDE = recorder/include
$(B)/%.pc: scripts/%.pc.in Makefile native/include/memwatch/memwatch.h
	@mkdir -p $(@D)
	$(Q)sed -e 's|@libdir@|$(abspath $(B))|; s|@includedir@|$(CURDIR)/$(INCLUDE)|; s|@version@|$(VERSION)|' $< > $@

# Programs are linked with the static libraries, so that sanitizers see everything; tests and benches see internals.
PUBLIC_ARCHIVES = $(B)/libmemwatch_recorder.a $(B)/libmemwatch_exporter.a $(B)/libmemwatch.a
ARCHIVES = $(patsubst $(B)/%,$(B)/internal/%,$(PUBLIC_ARCHIVES))
LINK = $(CC) $(LD_FLAGS) -Wl,-z,relro,-z,now -rdynamic -o $@ $< $(ARCHIVES) $(RECORDER_LIBS) $(EXPORTER_LIBS) $(NATIVE_LIBS) $(LDLIBS) -lm

$(B)/tests/fuzz/%: $(B)/obj/tests/fuzz/%.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(say) LD $@
	$(Q)$(subst fuzzer-no-link,fuzzer,$(LINK))

$(B)/tests/native/test_zydis: LDLIBS = -lZydis
$(B)/examples/%: ARCHIVES = $(PUBLIC_ARCHIVES)
$(call programs,$(EXAMPLE_C)): $(PUBLIC_ARCHIVES)
$(B)/%: $(B)/obj/%.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(say) LD $@
	$(Q)$(LINK)

$(B)/extension.stamp: $(EXT_FILES) $(PUBLIC_ARCHIVES) $(VENV)/.ready
	$(say) EXT $(VENV_PY)
	$(Q)scripts/build_extension $(VENV_PY)
	@touch $@

-include $(patsubst %.o,%.d,$(call objects,$(NATIVE_C) $(EXPORTER_C) $(RECORDER_C) $(TEST_C) $(STRESS_C) $(FUZZ_C) $(BENCH_C) $(EXAMPLE_C)))

# flash-moe: `make run` first, `make check` second, `make help` for the rest.

BUILD   ?= build
CC      ?= cc
PREFIX  ?= /usr/local
OPT     ?= -O2 -g
PKGS    := jansson libpcre2-8 libutf8proc
VERSION := 0.1.0

# make SANITIZE=address,undefined BUILD=build-asan ...
SANITIZE ?=
ifneq ($(SANITIZE),)
  OPT += -O1 -fno-omit-frame-pointer -fsanitize=$(SANITIZE) -fno-sanitize-recover=undefined
  LDFLAGS += -fsanitize=$(SANITIZE)
# Address and undefined both asking after every pointer take the compiler a minute for this one file;
# the address sanitizer knows the pointers, integers and bounds stay with the other.
%/kernels/table_portable.o: CFLAGS += -fno-sanitize=alignment,null,object-size,pointer-overflow
endif

# Never -ffast-math, never contraction: the same bits on every machine is the product.
CFLAGS  += -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -Wpointer-arith -Wstrict-prototypes \
           -Wmissing-prototypes -fno-strict-aliasing -ffp-contract=off -fPIC -pthread $(OPT)
CPPFLAGS += -Isrc -Iinclude -DFM_VERSION='"$(VERSION)"'

# make V=1 shows the commands.
Q := $(if $(V),,@)

have = $(shell pkg-config --exists $(1) 2>/dev/null && echo yes)
ifeq ($(call have,liburing),yes)
  PKGS += liburing
  CPPFLAGS += -DHAVE_LIBURING
endif
CPPFLAGS += $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LIBS     += $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm -pthread
APP_LIBS += $(shell pkg-config --libs libcurl libmicrohttpd libedit 2>/dev/null)

# The library core is these rooms; curl, HTTP and line editing stay in the program.
CORE_ROOMS := base kernels tensors experts model text engine
APP_ROOMS  := hub server cli
CORE_SRC := $(foreach r,$(CORE_ROOMS),$(wildcard src/$(r)/*.c src/$(r)/*/*.c))
APP_SRC  := $(foreach r,$(APP_ROOMS),$(wildcard src/$(r)/*.c))
CORE_OBJ := $(CORE_SRC:%.c=$(BUILD)/%.o)
APP_OBJ  := $(APP_SRC:%.c=$(BUILD)/%.o) $(BUILD)/web.o
LIB      := $(BUILD)/libflash-moe.a
SONAME   := libflash-moe.so.$(firstword $(subst ., ,$(VERSION)))
SHARED   := $(BUILD)/libflash-moe.so.$(VERSION)
PROG     := $(BUILD)/flash-moe

TEST_SRC := $(wildcard tests/unit/test_*.c)
TEST_BIN := $(TEST_SRC:tests/unit/%.c=$(BUILD)/tests/%)

.PHONY: all help deps run check check-only check-asan check-tsan check-agent check-clients check-arm64 check-simulated slow-disk fuzz fuzz-only man \
        install uninstall clean format
all: $(PROG) $(SHARED)

help:
	@sed -n 's/^#: //p' Makefile

#: make run        install what is missing, build, and let the bundled model answer
# 40 MiB hold the program, its weights and a part of the experts, which are 40.5 MiB alone.
PROMPT ?= Tell me a story about a fox and a crow.
run: deps
	@$(MAKE) --no-print-directory $(PROG)
	@echo "flash-moe run --memory 40M -p \"$(PROMPT)\""
	@$(PROG) run --memory 40M --context 1024 --temp 0 -n 160 --stats -p "$(PROMPT)"

#: make deps       install missing packages of the distribution (asks sudo only then)
deps:
	@tools/deps.sh

#: make            build the program at build/flash-moe
$(PROG): $(APP_OBJ) $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(APP_OBJ) $(LIB) $(LIBS) $(APP_LIBS)

$(LIB): $(CORE_OBJ)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# Only what the public headers declare can be seen from outside.
$(SHARED): $(CORE_OBJ) src/engine/exports.map
	$(Q)$(CC) -shared $(LDFLAGS) -Wl,-soname,$(SONAME) -Wl,--version-script=src/engine/exports.map \
	    -o $@ $(CORE_OBJ) $(LIBS)
	$(Q)ln -sf $(notdir $@) $(BUILD)/$(SONAME) && ln -sf $(SONAME) $(BUILD)/libflash-moe.so

# One file an instruction set, each with its own flags; dispatch happens at run time.
ifeq ($(shell $(CC) -dumpmachine | cut -d- -f1),x86_64)
%_avx2.o:   ISA := -mavx2 -mfma -mf16c -mbmi2
%_avx2vnni.o: ISA := -mavx2 -mfma -mf16c -mbmi2 -mavxvnni
%_avx512.o: ISA := -mavx2 -mfma -mf16c -mbmi2 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni \
                   -mavx512vbmi -mprefer-vector-width=512
endif

$(BUILD)/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  cc    $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(ISA) -MMD -MP -c -o $@ $<

# The server's page, as C.
WEB := $(addprefix src/server/web/,index.html style.css app.js markdown.js map.js icon.svg)
$(BUILD)/web.o: $(WEB) tools/embed Makefile
	@mkdir -p $(@D)
	@echo "  embed src/server/web"
	$(Q)tools/embed sv_web $(WEB) > $(BUILD)/web.c
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $(BUILD)/web.c

$(BUILD)/tests/%: tests/unit/%.c $(filter-out $(BUILD)/src/cli/main.o,$(APP_OBJ)) $(LIB)
	@mkdir -p $(@D)
	@echo "  test  $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -MMD -MP -o $@ $< \
	    $(filter-out $(BUILD)/src/cli/main.o,$(APP_OBJ)) $(LIB) -lcmocka $(LIBS) $(APP_LIBS)

#: make check      install what is missing, build everything and run all tests
check: deps
	@$(MAKE) --no-print-directory check-only

check-only: $(PROG) $(SHARED) $(TEST_BIN)
	@SANITIZE=$(SANITIZE) tests/run $(BUILD) $(TESTS)

#: make check-asan the same tests under the address and undefined behaviour sanitizers
check-asan: deps
	@$(MAKE) --no-print-directory SANITIZE=address,undefined BUILD=build-asan check-only

#: make check-tsan tests with several threads under the thread sanitizer
TSAN_TESTS := test_api test_engine test_experts test_fixed test_pool
check-tsan: deps
	@for test in $(TSAN_TESTS); do \
	    $(MAKE) --no-print-directory SANITIZE=thread BUILD=build-tsan build-tsan/tests/$$test && \
	    echo "tsan  $$test" && build-tsan/tests/$$test || exit 1; \
	done

#: make check-clients  the npm packages that people use, and the page in chromium, against the server
check-clients: $(PROG)
	cd tests/server-npm && npm install --no-audit --no-fund --no-package-lock
	tests/run $(BUILD) server_clients

#: make check-agent   an agent's first prompt of 25,000 tokens and its second turn, timed
check-agent: $(PROG)
	FLASH_MOE=$(PROG) AGENT_TOKENS=25000 tests/e2e/server_agent.py

#: make check-arm64 the kernel tests, cross compiled, under qemu-user
ARM_CC  ?= aarch64-linux-gnu-gcc
ARM_RUN ?= qemu-aarch64
ARM_SRC := $(wildcard src/base/*.c src/kernels/*.c)
check-arm64: $(BUILD)/arm64/test_kernels $(BUILD)/arm64/test_kernels_isa
	@for test in $^; do for cpu in max cortex-a57; do \
	    echo "$$test ($$cpu)"; $(ARM_RUN) -cpu $$cpu $$test || exit 1; done; done

$(BUILD)/arm64/%: tests/unit/%.c $(ARM_SRC) $(wildcard src/base/*.h src/kernels/*.h tests/unit/*.h)
	@mkdir -p $(@D)
	$(ARM_CC) -static -Itests/arm64 -Isrc -Iinclude $(CFLAGS) -o $@ $< $(ARM_SRC) -lm

#: make check-simulated  the kernel tests of AVX-512 and AVX-VNNI in software; needs libsimde-dev
check-simulated: $(LIB)
	@CC="$(CC)" tests/simulated/run.sh $(BUILD)

#: make slow-disk  shows a folder behind a disk of a chosen rate, for benchmarks; needs libfuse3-dev
slow-disk: $(BUILD)/slow_disk
$(BUILD)/slow_disk: bench/slow_disk.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $$(pkg-config --cflags fuse3) -o $@ $< $$(pkg-config --libs fuse3)

#: make fuzz       every harness of fuzz/ under libFuzzer and the address sanitizer, FUZZ_SECONDS=60 each
# What a run learns stays in build-fuzz/corpus; an input that fails stays as build-fuzz/NAME-crash-HASH.
FUZZ_CC      ?= clang
FUZZ_SECONDS ?= 60
FUZZ         := $(notdir $(basename $(wildcard fuzz/fuzz_*.c)))
fuzz:
	@$(MAKE) --no-print-directory CC="$(FUZZ_CC)" SANITIZE=fuzzer-no-link,address BUILD=build-fuzz fuzz-only

fuzz-only: $(FUZZ:%=$(BUILD)/%)
	@for name in $(FUZZ); do \
	    mkdir -p $(BUILD)/corpus/$$name && echo "fuzz  $$name, $(FUZZ_SECONDS) s" && \
	    $(BUILD)/$$name -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=4096 -print_final_stats=1 \
	        -artifact_prefix=$(BUILD)/$$name- $(BUILD)/corpus/$$name $$(ls -d fuzz/seeds/$$name 2>/dev/null) \
	        > $(BUILD)/$$name.log 2>&1 || { tail -n 60 $(BUILD)/$$name.log; exit 1; }; \
	    sed -n 's/^stat::number_of_executed_units: */      inputs tried: /p' $(BUILD)/$$name.log; \
	done

$(BUILD)/fuzz_%: fuzz/fuzz_%.c $(filter-out $(BUILD)/src/cli/main.o,$(APP_OBJ)) $(LIB)
	@echo "  fuzz  $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -fsanitize=fuzzer -MMD -MP -o $@ $< \
	    $(filter-out $(BUILD)/src/cli/main.o,$(APP_OBJ)) $(LIB) $(LIBS) $(APP_LIBS)

#: make man        manual pages from the option tables into build/man
VERBS = $(shell sed -n 's/^    {"\([a-z]*\)", ".*/\1/p' src/cli/verbs.c)
man: $(PROG)
	@mkdir -p $(BUILD)/man
	@$(PROG) completion --man flash-moe > $(BUILD)/man/flash-moe.1
	@for verb in $(VERBS); do \
	    $(PROG) completion --man $$verb > $(BUILD)/man/flash-moe-$$verb.1 || exit 1; \
	done

#: make install    PREFIX=/usr/local DESTDIR=; program, libraries, headers, manual pages, the model
install: all man
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/include \
	    $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/share/man/man1 \
	    $(DESTDIR)$(PREFIX)/share/flash-moe/models $(DESTDIR)$(PREFIX)/share/flash-moe/configs \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions \
	    $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 755 $(PROG) $(DESTDIR)$(PREFIX)/bin/
	install -m 644 include/flash_moe.h include/flash_moe_error.h include/flash_moe_seed.h \
	    $(DESTDIR)$(PREFIX)/include/
	install -m 644 $(LIB) $(DESTDIR)$(PREFIX)/lib/
	install -m 755 $(SHARED) $(DESTDIR)$(PREFIX)/lib/
	ln -sf $(notdir $(SHARED)) $(DESTDIR)$(PREFIX)/lib/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(PREFIX)/lib/libflash-moe.so
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|; s|@REQUIRES@|$(PKGS)|' \
	    tools/flash-moe.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/flash-moe.pc
	install -m 644 $(BUILD)/man/*.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	cp -R models/flash-moe-tiny $(DESTDIR)$(PREFIX)/share/flash-moe/models/
	install -m 644 configs/*.json $(DESTDIR)$(PREFIX)/share/flash-moe/configs/
	$(PROG) completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/flash-moe
	$(PROG) completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_flash-moe
	$(PROG) completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/flash-moe.fish

#: make uninstall  remove what install put there
uninstall:
	rm -rf $(DESTDIR)$(PREFIX)/bin/flash-moe $(DESTDIR)$(PREFIX)/include/flash_moe*.h \
	    $(DESTDIR)$(PREFIX)/lib/libflash-moe.* $(DESTDIR)$(PREFIX)/lib/pkgconfig/flash-moe.pc \
	    $(DESTDIR)$(PREFIX)/share/man/man1/flash-moe*.1 $(DESTDIR)$(PREFIX)/share/flash-moe \
	    $(DESTDIR)$(PREFIX)/share/bash-completion/completions/flash-moe \
	    $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_flash-moe \
	    $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/flash-moe.fish

#: make format     clang-format over the tree
format:
	clang-format -i $(shell git ls-files '*.c' '*.h')

#: make clean      remove build/
clean:
	rm -rf $(BUILD) build-asan build-tsan build-fuzz

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

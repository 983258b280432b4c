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
PROG     := $(BUILD)/flash-moe

TEST_SRC := $(wildcard tests/unit/test_*.c)
TEST_BIN := $(TEST_SRC:tests/unit/%.c=$(BUILD)/tests/%)

.PHONY: all help check check-arm64 clean format
all: $(PROG)

help:
	@sed -n 's/^#: //p' Makefile

#: make            build the program at build/flash-moe
$(PROG): $(APP_OBJ) $(LIB)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(APP_OBJ) $(LIB) $(LIBS) $(APP_LIBS)

$(LIB): $(CORE_OBJ)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# One file an instruction set, each with its own flags; dispatch happens at run time.
ifeq ($(shell $(CC) -dumpmachine | cut -d- -f1),x86_64)
%_avx2.o:   ISA := -mavx2 -mfma -mf16c -mbmi2
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

#: make check      build everything and run all tests
check: $(PROG) $(TEST_BIN)
	tests/run $(BUILD)

#: make check-arm64 the kernel tests, cross compiled, under qemu-user
ARM_CC  ?= aarch64-linux-gnu-gcc
ARM_RUN ?= qemu-aarch64
ARM_SRC := $(wildcard src/base/*.c src/kernels/*.c)
check-arm64: $(BUILD)/arm64/test_kernels $(BUILD)/arm64/test_kernels_isa
	@for test in $^; do echo "$$test"; $(ARM_RUN) $$test || exit 1; done

$(BUILD)/arm64/%: tests/unit/%.c $(ARM_SRC) $(wildcard src/base/*.h src/kernels/*.h tests/unit/*.h)
	@mkdir -p $(@D)
	$(ARM_CC) -static -Itests/arm64 -Isrc -Iinclude $(CFLAGS) -o $@ $< $(ARM_SRC) -lm

#: make format     clang-format over the tree
format:
	clang-format -i $(shell git ls-files '*.c' '*.h')

#: make clean      remove build/
clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

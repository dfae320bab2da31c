// fxc.exe DLL FILE ENTRY: compiles a text with the real FXC, as wgpu has it do that (cs_5_1, strict, optimized as by default), under Wine or on Windows.
//
// Prints a line: the result in hexadecimal, milliseconds, bytes of code, temporary registers, registers that are indexed; then what the compiler says.
#include <stdio.h>
#include <string.h>
#include <windows.h>

typedef struct Blob Blob;
typedef struct {
    HRESULT(WINAPI *query)(Blob *, const GUID *, void **);
    ULONG(WINAPI *add)(Blob *);
    ULONG(WINAPI *release)(Blob *);
    void *(WINAPI *pointer)(Blob *);
    SIZE_T(WINAPI *size)(Blob *);
} Methods;
struct Blob {
    const Methods *methods;
};
typedef HRESULT(WINAPI *Compile)(
    const void *, SIZE_T, const char *, const void *, void *, const char *, const char *, UINT, UINT, Blob **, Blob **);
typedef HRESULT(WINAPI *Disassemble)(const void *, SIZE_T, UINT, const char *, Blob **);

#define STRICTNESS (1 << 11)

// All numbers behind a word in a text, added up by `each`: 0 for the number itself, the last of them; 1 for how many there are.
static unsigned found(const char *text, const char *word, int count) {
    unsigned last = 0, times = 0;
    for (const char *at = strstr(text, word); at; at = strstr(at + 1, word)) {
        times++;
        sscanf(at + strlen(word), "%u", &last);
    }
    return count ? times : last;
}

int main(int count, char **words) {
    static char text[1 << 20];
    HMODULE library = count == 4 ? LoadLibraryA(words[1]) : 0;
    Compile compile = library ? (Compile)GetProcAddress(library, "D3DCompile") : 0;
    Disassemble disassemble = library ? (Disassemble)GetProcAddress(library, "D3DDisassemble") : 0;
    FILE *file = compile && disassemble ? fopen(words[2], "rb") : 0;
    if (!file) {
        fprintf(stderr, "usage: fxc.exe d3dcompiler_47.dll FILE ENTRY\n");
        return 2;
    }
    size_t length = fread(text, 1, sizeof text, file);
    Blob *code = 0, *says = 0, *listing = 0;
    LARGE_INTEGER begun, ended, second;
    QueryPerformanceFrequency(&second);
    QueryPerformanceCounter(&begun);
    HRESULT result = compile(text, length, words[2], 0, 0, words[3], "cs_5_1", STRICTNESS, 0, &code, &says);
    QueryPerformanceCounter(&ended);
    double ms = 1e3 * (double)(ended.QuadPart - begun.QuadPart) / (double)second.QuadPart;
    unsigned temporaries = 0, indexed = 0;
    SIZE_T size = code ? code->methods->size(code) : 0;
    if (code && disassemble(code->methods->pointer(code), size, 0, 0, &listing) >= 0) {
        const char *listed = listing->methods->pointer(listing);
        temporaries = found(listed, "dcl_temps ", 0);
        indexed = found(listed, "dcl_indexableTemp", 1);
    }
    printf("%lx %.0f %u %u %u\n", (unsigned long)result, ms, (unsigned)size, temporaries, indexed);
    if (says) {
        printf("%s\n", (const char *)says->methods->pointer(says));
    }
    return result < 0;
}

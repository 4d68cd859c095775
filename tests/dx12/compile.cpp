// Compiles shaders with a compiler of DX12, as wgpu does. For scripts/test-dx12-compilers.
//
//     compile.exe dxc|fxc FOLDER
//
// FOLDER/list has lines of "FILE ENTRY TARGET OPTIONS". Prints what fails and why, the slowest, and how many there were.
#include <d3dcompiler.h>
#include <windows.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

// Of dxcapi.h, which mingw does not have: as much as is used.
struct DxcBuffer {
    const void *pointer;
    size_t size;
    UINT32 encoding;
};
struct IDxcOperationResult : IUnknown {
    virtual HRESULT STDMETHODCALLTYPE GetStatus(HRESULT *status) = 0;
    virtual HRESULT STDMETHODCALLTYPE GetResult(ID3DBlob **result) = 0;
    virtual HRESULT STDMETHODCALLTYPE GetErrorBuffer(ID3DBlob **errors) = 0;
};
struct IDxcCompiler3 : IUnknown {
    virtual HRESULT STDMETHODCALLTYPE Compile(const DxcBuffer *source, LPCWSTR *arguments, UINT32 count, void *includes,
                                              REFIID kind, void **result) = 0;
};
static const GUID CLSID_DxcCompiler = {0x73e22d93, 0xe6ce, 0x47f3, {0xb5, 0xbf, 0xf0, 0x66, 0x4f, 0x39, 0xc1, 0xb0}};
static const GUID IID_IDxcCompiler3 = {0x228b4687, 0x5a6a, 0x4730, {0x90, 0x0c, 0x97, 0x02, 0xb2, 0x20, 0x3f, 0x54}};
static const GUID IID_IDxcOperationResult = {0xcedb484a, 0xd4e9, 0x445a, {0xb9, 0x91, 0xca, 0x21, 0xca, 0x15, 0x7d, 0xc2}};
static const UINT32 UTF8 = 65001;

template <typename Function> static Function find(const char *library, const char *name) {
    HMODULE module = LoadLibraryA(library);
    auto function = module ? reinterpret_cast<Function>(reinterpret_cast<void *>(GetProcAddress(module, name))) : nullptr;
    if (!function) {
        std::cout << library << " has no " << name << " or cannot be loaded\n";
        exit(2);
    }
    return function;
}

static std::string text_of(ID3DBlob *blob) {
    if (!blob) return "";
    std::string text(static_cast<const char *>(blob->GetBufferPointer()), blob->GetBufferSize());
    blob->Release();
    return text.c_str(); // as far as its 0
}

struct Shader {
    std::string file, entry, target;
    std::vector<std::string> options;
    std::string text;
};

static bool with_dxc(const Shader &shader, std::string &message) {
    static IDxcCompiler3 *compiler = [] {
        auto create = find<HRESULT(WINAPI *)(REFIID, REFIID, void **)>("dxcompiler.dll", "DxcCreateInstance");
        void *compiler = nullptr;
        if (FAILED(create(CLSID_DxcCompiler, IID_IDxcCompiler3, &compiler))) exit(2);
        return static_cast<IDxcCompiler3 *>(compiler);
    }();
    std::vector<std::string> arguments = {"-E", shader.entry, "-T", shader.target, "-HV", "2018", "-no-warnings", "-Ges"};
    arguments.insert(arguments.end(), shader.options.begin(), shader.options.end());
    std::vector<std::wstring> wide;
    for (auto &argument : arguments) wide.emplace_back(argument.begin(), argument.end());
    std::vector<LPCWSTR> pointers;
    for (auto &argument : wide) pointers.push_back(argument.c_str());
    DxcBuffer source = {shader.text.data(), shader.text.size(), UTF8};
    void *any = nullptr;
    if (FAILED(compiler->Compile(&source, pointers.data(), pointers.size(), nullptr, IID_IDxcOperationResult, &any))) {
        message = "dxcompiler.dll refuses the call";
        return false;
    }
    auto result = static_cast<IDxcOperationResult *>(any);
    HRESULT status = E_FAIL;
    ID3DBlob *errors = nullptr;
    result->GetStatus(&status);
    result->GetErrorBuffer(&errors);
    message = text_of(errors);
    result->Release();
    return SUCCEEDED(status);
}

static bool with_fxc(const Shader &shader, std::string &message) {
    static auto compile = find<decltype(&D3DCompile)>("d3dcompiler_47.dll", "D3DCompile");
    ID3DBlob *object = nullptr, *errors = nullptr;
    HRESULT status = compile(shader.text.data(), shader.text.size(), shader.file.c_str(), nullptr, nullptr, shader.entry.c_str(),
                             shader.target.c_str(), D3DCOMPILE_ENABLE_STRICTNESS, 0, &object, &errors);
    if (object) object->Release();
    message = text_of(errors);
    return SUCCEEDED(status);
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    std::string compiler = arguments[1], folder = std::string(arguments[2]) + "/", line, slowest;
    std::ifstream list(folder + "list");
    int all = 0, failed = 0;
    DWORD most = 0;
    while (std::getline(list, line)) {
        std::istringstream words(line);
        Shader shader;
        words >> shader.file >> shader.entry >> shader.target;
        shader.options.assign(std::istream_iterator<std::string>(words), {});
        std::ifstream file(folder + shader.file, std::ios::binary);
        shader.text.assign(std::istreambuf_iterator<char>(file), {});
        std::string message;
        DWORD begun = GetTickCount();
        bool ok = compiler == "dxc" ? with_dxc(shader, message) : with_fxc(shader, message);
        DWORD took = GetTickCount() - begun;
        if (took >= most) most = took, slowest = shader.file;
        all++;
        if (!ok) {
            failed++;
            std::cout << "FAILED: " << shader.file << "\n" << message << std::endl;
        }
    }
    std::cout << compiler << ": " << failed << " of " << all << " shaders failed; slowest: " << slowest << ", " << most << " ms\n";
    return failed > 0 || all == 0;
}
